-- _daemons: the specs and entries of the daemons in a call, prepended to each verb with `include: _daemons` in its
-- header.
--
-- Only these functions write specs and entries. They also update what follows from both: the counts, and the index of
-- daemons that need attention. A verb reads (read_specs, read_entries), then changes each daemon (edit, and then one of
-- put_entry, put_spec, drop_entry; or drop_spec, unplace), and saves (save). domain/counts.py computes the same counts
-- from the records.

-- Statuses of daemons that need attention, and the scores of these daemons in the index.
local UNHEALTHY = {backoff = 1, failed = 2, unplaceable = 3}

-- Open the daemons of a call. keys: specs, book, counts and unhealthy, and traces for a verb that may drop entries.
local function open_daemons(keys)
  return {
    keys = keys, specs = {}, entries = {}, corrupt = {}, with_specs = false,
    -- The daemon that is being changed, and its score in the index before.
    edited = nil, score = nil,
    -- What save will write.
    cells = {}, written_specs = {}, written = {}, written_count = 0, dropped = {}, index = {},
  }
end

-- Cells by the fields that they count. A cell is a field of the counts and by how much its count changes.
local cells = {}
-- The last cells found before a change, and after one: `on` a node, and `off` all nodes. Most daemons of a batch change
-- alike, and a comparison takes less time than joining the field.
local before, after = {on = {}, off = {}}, {on = {}, off = {}}

local function cell_in(daemons, field)
  local cell = cells[field]
  if not cell then
    cell = {field = field, change = 0}
    cells[field] = cell
    daemons.cells[#daemons.cells + 1] = cell
  end
  return cell
end

-- Return the cell in which a daemon is counted, with the field `wanted,status,incarnation,launcher`; nil for a daemon
-- with neither a spec nor a node. The incarnation is part of it because the status of a daemon counts only while that
-- incarnation has a lease. An entry on a node is marked if the daemon is no longer wanted, so that a verb that
-- changes only entries need not read the specs, which may be long.
local function cell_of(daemons, spec, entry, last_cells)
  if entry and entry.node then
    local status, incarnation, launcher, unwanted = entry.status, entry.incarnation, entry.launcher, entry.unwanted
    local last = last_cells.on
    if last.status == status and last.incarnation == incarnation and last.launcher == launcher
      and last.unwanted == unwanted then
      return last.cell
    end
    local field = (unwanted or 'running') .. ',' .. status .. ',' .. (incarnation or '?') .. ',' .. launcher
    local cell = cell_in(daemons, field)
    last.status, last.incarnation, last.launcher, last.unwanted, last.cell =
      status, incarnation, launcher, unwanted, cell
    return cell
  elseif spec then
    local desired, launcher = spec.desired, spec.launcher
    local status = 'stopped'
    if desired == 'running' then
      status = entry and entry.status == 'unplaceable' and 'unplaceable' or 'pending'
    end
    local last = last_cells.off
    if last.status == status and last.launcher == launcher then return last.cell end
    local cell = cell_in(daemons, desired .. ',' .. status .. ',,' .. launcher)
    last.status, last.launcher, last.cell = status, launcher, cell
    return cell
  end
  return nil
end

-- Read the specs of daemons. A verb that does so reads the specs first and the entries second.
local function read_specs(daemons, names)
  daemons.with_specs = true
  daemons.specs = get_all(daemons.keys.specs, names, SPEC)
end

-- Read the entries of daemons.
local function read_entries(daemons, names)
  daemons.entries, daemons.corrupt = get_all(daemons.keys.book, names, ENTRY)
end

-- Begin to change a daemon, before any field of its spec or entry is changed. One put or drop must follow.
local function edit(daemons, name)
  if daemons.edited then error('daemon ' .. daemons.edited .. ' was not put before ' .. name .. ' was edited') end
  daemons.edited = name
  local entry = daemons.entries[name]
  local cell = cell_of(daemons, daemons.specs[name], entry, before)
  if cell then cell.change = cell.change - 1 end
  daemons.score = entry and UNHEALTHY[entry.status]
end

-- Count a daemon again by its present spec and entry.
local function edited(daemons, name, spec, entry)
  if daemons.edited ~= name then error('daemon ' .. name .. ' was put without being edited') end
  daemons.edited = nil
  local cell = cell_of(daemons, spec, entry, after)
  if cell then cell.change = cell.change + 1 end
  local score = entry and UNHEALTHY[entry.status]
  if score ~= daemons.score then daemons.index[name] = score or false end
end

local function put_entry(daemons, name, entry)
  local spec, unwanted = daemons.specs[name], entry.unwanted
  if not entry.node then
    unwanted = nil
  elseif daemons.with_specs then
    unwanted = not spec and 'forgotten' or spec.desired == 'stopped' and 'stopped' or nil
  end
  if entry.unwanted ~= unwanted then entry.unwanted = unwanted end
  if daemons.entries[name] ~= entry then daemons.entries[name] = entry end
  local written, count = daemons.written, daemons.written_count
  written[count + 1], written[count + 2] = name, encode(entry)
  daemons.written_count = count + 2
  edited(daemons, name, spec, entry)
end

-- Delete an entry that is on no node, and the traceback.
local function drop_entry(daemons, name)
  daemons.entries[name] = nil
  daemons.dropped[#daemons.dropped + 1] = name
  edited(daemons, name, daemons.specs[name], nil)
end

local function put_spec(daemons, name, spec)
  local entry = daemons.entries[name]
  daemons.specs[name] = spec
  put_later(daemons.written_specs, name, spec)
  if entry and entry.node then put_entry(daemons, name, entry) else edited(daemons, name, spec, entry) end
end

-- Delete a spec, and the entry unless the daemon is on a node. Returns whether there was a spec, corrupt or not.
local function drop_spec(daemons, name)
  if redis.call('HDEL', daemons.keys.specs, name) == 0 then return false end
  edit(daemons, name)
  local entry = daemons.entries[name]
  daemons.specs[name] = nil
  if not entry then
    redis.call('HDEL', daemons.keys.traces, name)
    edited(daemons, name, nil, nil)
  elseif entry.node then
    put_entry(daemons, name, entry)
  else
    drop_entry(daemons, name)
  end
  return true
end

-- Take a daemon off its node, but keep its history; or drop its entry, if the daemon no longer has a spec.
local function unplace(daemons, name, entry, status)
  edit(daemons, name)
  local spec = daemons.specs[name]
  entry.node, entry.incarnation, entry.pid, entry.started_ms, entry.why = nil, nil, nil, nil, nil
  if not spec then return drop_entry(daemons, name) end
  entry.status = spec.desired == 'running' and status or 'stopped'
  put_entry(daemons, name, entry)
end

-- Write what has changed.
local function save(daemons)
  local keys = daemons.keys
  if daemons.edited then error('daemon ' .. daemons.edited .. ' was edited and not put') end
  write_all('HSET', keys.specs, daemons.written_specs)
  write_all('HSET', keys.book, daemons.written)
  write_all('HDEL', keys.book, daemons.dropped)
  if keys.traces then write_all('HDEL', keys.traces, daemons.dropped) end
  local indexed, unindexed = {}, {}
  for name, score in pairs(daemons.index) do
    if score then
      indexed[#indexed + 1] = score
      indexed[#indexed + 1] = name
    else
      unindexed[#unindexed + 1] = name
    end
  end
  write_all('ZADD', keys.unhealthy, indexed)
  write_all('ZREM', keys.unhealthy, unindexed)
  for _, cell in ipairs(daemons.cells) do
    -- pcall: a count that is not a number must stop no verb; the monitor repairs it.
    if cell.change ~= 0 and redis.pcall('HINCRBY', keys.counts, cell.field, cell.change) == 0 then
      redis.call('HDEL', keys.counts, cell.field)
    end
  end
end
