-- _shared: what every verb starts with; prepended to each script when it is loaded.
--
-- Tokens and epochs are microseconds of Redis TIME, below 2^53: exact as Lua numbers, but cjson and tostring round
-- them, so they travel and are stored as strings.

local JOURNAL_ENTRIES = 2000

local function now_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

-- Reserve n tokens; returns the first. They grow past everything issued before, and past the wall clock, so that they
-- go on growing when the counter is lost with the data.
local function mint(clock, n)
  local last = tonumber(redis.call('GET', clock) or '0') or 0
  -- Neither rubbish nor infinity may stand in the way of the wall clock.
  if not (last < 2 ^ 53) then last = 0 end
  local first = math.max(last + 1, now_us())
  redis.call('SET', clock, text(first + n - 1))
  return first
end

-- One journal entry for a batch of {name, token, cause}; an empty batch leaves none.
local function journal(key, event, node, epoch, cause, items)
  if items and #items == 0 then return end
  redis.call('XADD', key, 'MAXLEN', '~', JOURNAL_ENTRIES, '*', 'event', event, 'node', node or '', 'epoch', epoch or '',
    'cause', cause or '', 'items', items and cjson.encode(items) or '[]')
end

-- What a field must be: of this type, and more if it says so. One that may be missing is 'spare', one that may also be
-- null is 'null'.
local TEXT, NUMBER, WHOLE = {is = 'string'}, {is = 'number'}, {is = 'number', whole = true}
local SPARE_TEXT, COUNT = {is = 'string', spare = true}, {is = 'number', whole = true, spare = true}
local NULL_TEXT, FLAG = {is = 'string', spare = true, null = true}, {is = 'boolean', spare = true}
local TOKEN = {is = 'string', digits = true}
local function one_of(...)
  local known = {}
  for _, value in ipairs({...}) do known[value] = true end
  return {is = 'string', known = known}
end

-- What the records must look like: the same as in domain/records.py, or one side would wait for the other for ever.
local SPEC = {launcher = TEXT, arguments = TEXT, desired = one_of('running', 'stopped'), version = TEXT,
  target = NULL_TEXT, avoid = NULL_TEXT}
local ENTRY = {
  status = one_of('pending', 'assigned', 'starting', 'running', 'stopping', 'backoff', 'failed', 'stopped',
    'unplaceable'),
  token = TOKEN, launcher = TEXT, node = NULL_TEXT, incarnation = NULL_TEXT, error = NULL_TEXT, version = SPARE_TEXT,
  pid = COUNT, started_ms = COUNT, restarts = COUNT, why = NULL_TEXT, avoid = NULL_TEXT,
}
local NODE = {
  incarnation = TEXT, status = one_of('up', 'draining', 'lost'), queue = TEXT, spawn_queue = TEXT, host = TEXT,
  pid = WHOLE, weight = NUMBER, labels = TEXT, launchers = TEXT, started_ms = COUNT,
  candidate = FLAG, needs = SPARE_TEXT,
}
local LEADER = {node = TEXT, epoch = TOKEN}

local needed = {}
-- How many fields a record of this shape cannot do without.
local function count_needed(shape)
  local count = 0
  for _, rule in pairs(shape) do
    if not rule.spare then count = count + 1 end
  end
  needed[shape] = count
  return count
end

-- A record from its JSON, or nil. A corrupted one counts as absent here; whoever follows the book reports it. Fields of
-- a newer version are kept, but only what can be written again. One loop and few calls: this is most of what verbs cost.
local decode, kind_of, null = cjson.decode, type, cjson.null
local function read(raw, shape)
  local ok, record = pcall(decode, raw or 'null')
  if not ok or kind_of(record) ~= 'table' then return nil end
  local missing = needed[shape] or count_needed(shape)
  for field, value in pairs(record) do
    local rule, kind = shape[field], kind_of(value)
    if not rule or (value == null and rule.null) then
      local kept = kind == 'string' or kind == 'boolean' or (kind == 'number' and value - value == 0)
      if not kept then record[field] = nil end
    elseif kind ~= rule.is then
      return nil
    elseif kind == 'number' then
      -- Neither infinity nor what is no number, and nothing that cjson would round.
      if value - value ~= 0 then return nil end
      if rule.whole and (value % 1 ~= 0 or value >= 1e14 or value <= -1e14) then return nil end
    else
      if rule.known and not rule.known[value] then return nil end
      if rule.digits and (#value > 16 or not value:find('^%d+$')) then return nil end
    end
    if rule and not rule.spare then missing = missing - 1 end
  end
  return missing == 0 and record or nil
end

-- The record under a field, or nil; the second value is true for one that is there but cannot be read.
local function get(key, field, shape)
  local raw = redis.call('HGET', key, field)
  local record = read(raw, shape)
  return record, (raw and not record) or false
end

-- The records under many fields, by field; the second value has true for those that are there but cannot be read. A
-- verb that changes one changes it here too, for the same field may be in a batch twice.
local function get_all(key, fields, shape)
  local records, corrupt = {}, {}
  local raws = #fields > 0 and redis.call('HMGET', key, unpack(fields)) or {}
  for i, field in ipairs(fields) do
    if raws[i] then
      records[field] = read(raws[i], shape)
      corrupt[field] = not records[field]
    end
  end
  return records, corrupt
end

-- What a list of items has under one key.
local function column(items, key)
  local values = {}
  for i, item in ipairs(items) do values[i] = item[key] end
  return values
end

-- Whether no lease runs that ever ran: Redis was away from all nodes, or all of them from Redis.
local function silence(leases, now)
  local last = redis.call('ZREVRANGE', leases, 0, 0, 'WITHSCORES')[2]
  return last ~= nil and tonumber(last) <= now
end

local function put(key, field, record)
  redis.call('HSET', key, field, cjson.encode(record))
end

-- Put a record on a list of what is written at once, by write_all.
local function put_later(list, field, record)
  list[#list + 1] = field
  list[#list + 1] = cjson.encode(record)
end

-- Carry out one command on a key for a whole list, if there is anything on it.
local function write_all(command, key, list)
  if #list > 0 then redis.call(command, key, unpack(list)) end
end

-- Remember the queues of a node that is gone: somebody has to remove them from the broker, unless it comes back.
local function remember(gone, node, record)
  if record then
    local queues = {at_ms = now_ms(), queue = record.queue, spawn_queue = record.spawn_queue}
    -- A full server refuses this, and must not keep the node from leaving.
    redis.pcall('HSET', gone, node, cjson.encode(queues))
  end
end

-- Whether the monitor's lease is held under this epoch.
local function leads(monitor, epoch)
  local leader = read(redis.call('GET', monitor), LEADER)
  return leader ~= nil and leader.epoch == epoch
end

-- Take a daemon off its node but remember what befell it: puts its record on the list of those to be written, or its
-- name, if nobody wants it any more, on that of those to be forgotten.
local function unplace(spec, name, record, status, kept, gone)
  record.node, record.incarnation, record.pid, record.started_ms, record.why = nil, nil, nil, nil, nil
  if not spec then
    gone[#gone + 1] = name
    return
  end
  record.status = spec.desired == 'running' and status or 'stopped'
  put_later(kept, name, record)
end
