-- _shared: what every verb starts with; prepended to each script when it is loaded.
--
-- Tokens and epochs are microseconds of Redis TIME, below 2^53: exact as Lua numbers, but cjson and tostring round
-- them, so they travel and are stored as strings.

local JOURNAL_ENTRIES = 5000

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
  local first = math.max(tonumber(redis.call('GET', clock) or '0') + 1, now_us())
  redis.call('SET', clock, text(first + n - 1))
  return first
end

-- One journal entry for a batch of {name, token, cause}; an empty batch leaves none.
local function journal(key, event, node, epoch, cause, items)
  if items and #items == 0 then return end
  redis.call('XADD', key, 'MAXLEN', '~', JOURNAL_ENTRIES, '*', 'event', event, 'node', node or '', 'epoch', epoch or '',
    'cause', cause or '', 'items', items and cjson.encode(items) or '[]')
end

local function get(key, field)
  local raw = redis.call('HGET', key, field)
  -- A corrupted record counts as absent here; whoever follows the book reports it.
  local ok, record = pcall(cjson.decode, raw or 'null')
  if ok and type(record) == 'table' then return record end
  return nil
end

local function put(key, field, record)
  redis.call('HSET', key, field, cjson.encode(record))
end

-- Take a daemon off its node but remember what befell it; a daemon that nobody wants is not remembered.
local function unplace(book, specs, name, record, status)
  local spec = get(specs, name)
  if not spec then
    redis.call('HDEL', book, name)
    return
  end
  record.node, record.incarnation, record.pid, record.started_ms = nil, nil, nil, nil
  record.status = spec.desired == 'running' and status or 'stopped'
  put(book, name, record)
end
