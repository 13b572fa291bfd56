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

local function is_text(value) return type(value) == 'string' end
local function may_be_text(value) return value == nil or value == cjson.null or is_text(value) end
local function is_spare_text(value) return value == nil or is_text(value) end
local function is_flag(value) return value == nil or type(value) == 'boolean' end
local function is_number(value) return type(value) == 'number' and value - value == 0 end
local function is_whole(value) return is_number(value) and value == math.floor(value) and math.abs(value) < 1e14 end
local function is_count(value) return value == nil or is_whole(value) end
local function is_token(value) return is_text(value) and #value <= 16 and value:find('^%d+$') ~= nil end
local function one_of(...)
  local known = {}
  for _, value in ipairs({...}) do known[value] = true end
  return function(value) return is_text(value) and known[value] == true end
end

-- What the records must look like: the same as in domain/records.py, or one side would wait for the other for ever.
local SPEC = {launcher = is_text, arguments = is_text, desired = one_of('running', 'stopped'), version = is_text,
  goal = may_be_text, shun = may_be_text}
local ENTRY = {
  status = one_of('pending', 'assigned', 'starting', 'running', 'stopping', 'backoff', 'failed', 'stopped',
    'unplaceable'),
  token = is_token, launcher = is_text, node = may_be_text, incarnation = may_be_text, error = may_be_text,
  version = is_spare_text, pid = is_count, started_ms = is_count, restarts = is_count, why = may_be_text,
  shun = may_be_text,
}
local NODE = {
  incarnation = is_text, status = one_of('up', 'draining', 'lost'), queue = is_text, spawn_queue = is_text,
  host = is_text, pid = is_whole, weight = is_number, labels = is_text, launchers = is_text, started_ms = is_count,
  needs = is_spare_text, candidate = is_flag,
}
local LEADER = {node = is_text, epoch = is_token}

-- A record from its JSON, or nil. A corrupted one counts as absent here; whoever follows the book reports it.
local function read(raw, shape)
  local ok, record = pcall(cjson.decode, raw or 'null')
  if not ok or type(record) ~= 'table' then return nil end
  for field, fits in pairs(shape) do
    if not fits(record[field]) then return nil end
  end
  -- Fields of a newer version are kept, but only what can be written again.
  for field, value in pairs(record) do
    if not is_text(value) and not is_number(value) and type(value) ~= 'boolean' then record[field] = nil end
  end
  return record
end

-- The record under a field, or nil; the second value is true for one that is there but cannot be read.
local function get(key, field, shape)
  local raw = redis.call('HGET', key, field)
  local record = read(raw, shape)
  return record, (raw and not record) or false
end

-- Whether no lease runs that ever ran: Redis was away from all nodes, or all of them from Redis.
local function silence(leases, now)
  local last = redis.call('ZREVRANGE', leases, 0, 0, 'WITHSCORES')[2]
  return last ~= nil and tonumber(last) <= now
end

local function put(key, field, record)
  redis.call('HSET', key, field, cjson.encode(record))
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

-- Take a daemon off its node but remember what befell it; a daemon that nobody wants is not remembered.
local function unplace(book, specs, traces, name, record, status)
  local spec = get(specs, name, SPEC)
  if not spec then
    redis.call('HDEL', book, name)
    redis.call('HDEL', traces, name)
    return
  end
  record.node, record.incarnation, record.pid, record.started_ms, record.why = nil, nil, nil, nil, nil
  record.status = spec.desired == 'running' and status or 'stopped'
  put(book, name, record)
end
