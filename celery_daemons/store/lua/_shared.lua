-- _shared: helper functions, prepended to the script of each verb.
--
-- Tokens and epochs are microseconds of Redis TIME, below 2^53. Lua numbers hold them exactly, but cjson and tostring
-- round them. They are therefore passed and stored as strings.

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

-- Reserve n tokens and return the first. Tokens are higher than all tokens issued before, and at least the wall clock,
-- so that they keep growing after the counter was lost with the data.
local function mint(clock, n)
  local last = tonumber(redis.call('GET', clock) or '0') or 0
  -- Ignore a corrupt counter, including infinity and NaN, and continue from the wall clock.
  if not (last < 2 ^ 53) then last = 0 end
  local first = math.max(last + 1, now_us())
  redis.call('SET', clock, text(first + n - 1))
  return first
end

-- Write one journal entry for a batch of {name, token, cause}, or none if the batch is empty. Without items, the entry
-- is about a node or the cluster. actor: the person or process that asked for the change; absent for what a node
-- reports of itself.
local function journal(key, event, node, epoch, cause, items, actor)
  if items and #items == 0 then return end
  redis.call('XADD', key, 'MAXLEN', '~', JOURNAL_ENTRIES, '*', 'event', event, 'node', node or '', 'epoch', epoch or '',
    'cause', cause or '', 'items', items and cjson.encode(items) or '[]', 'actor', actor or '')
end

-- Rules for fields of records. is: the type; whole: an integer; digits: a token; known: the allowed values; spare: the
-- field may be absent; null: the field may be null.
local TEXT, NUMBER, WHOLE = {is = 'string'}, {is = 'number'}, {is = 'number', whole = true}
local SPARE_TEXT, COUNT = {is = 'string', spare = true}, {is = 'number', whole = true, spare = true}
local NULL_TEXT, FLAG = {is = 'string', spare = true, null = true}, {is = 'boolean', spare = true}
local TOKEN = {is = 'string', digits = true}
local function one_of(...)
  local known = {}
  for _, value in ipairs({...}) do known[value] = true end
  return {is = 'string', known = known}
end

-- The fields of each kind of record. They must agree with domain/records.py: if one side read a record that the other
-- side takes for corrupt, each would wait for the other forever.
local SPEC = {launcher = TEXT, arguments = TEXT, desired = one_of('running', 'stopped'), version = TEXT,
  target = NULL_TEXT, avoid = NULL_TEXT}
local ENTRY = {
  status = one_of('pending', 'assigned', 'starting', 'running', 'stopping', 'backoff', 'failed', 'stopped',
    'unplaceable'),
  token = TOKEN, launcher = TEXT, node = NULL_TEXT, incarnation = NULL_TEXT, error = NULL_TEXT, version = SPARE_TEXT,
  pid = COUNT, started_ms = COUNT, restarts = COUNT, why = NULL_TEXT, avoid = NULL_TEXT,
  unwanted = {is = 'string', spare = true, null = true, known = {stopped = true, forgotten = true}},
}
local NODE = {
  incarnation = TEXT, status = one_of('up', 'draining', 'lost'), queue = TEXT, spawn_queue = TEXT, host = TEXT,
  pid = WHOLE, weight = NUMBER, labels = TEXT, launchers = TEXT, started_ms = COUNT,
  candidate = FLAG, needs = SPARE_TEXT, problem = SPARE_TEXT, warning = SPARE_TEXT, scanners = SPARE_TEXT,
  blocked = SPARE_TEXT,
}
local LEADER = {node = TEXT, epoch = TOKEN, ttl_ms = {is = 'string', digits = true, spare = true}}

local needed = {}
-- Count the fields that a record of this shape must have.
local function count_needed(shape)
  local count = 0
  for _, rule in pairs(shape) do
    if not rule.spare then count = count + 1 end
  end
  needed[shape] = count
  return count
end

-- Decode a record from JSON; nil if it is absent or corrupt. (Replicas of the book report corrupt records.) Unknown
-- fields, of a newer version, are kept if cjson can encode them again. This function takes most of the time of a verb,
-- so it is one loop with few calls.
local decode, encode, kind_of, null = cjson.decode, cjson.encode, type, cjson.null
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
      -- Refuse infinity and NaN, and integers that cjson would round.
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

-- Read the record under a field, or nil. The second value is true if the record exists but is corrupt.
local function get(key, field, shape)
  local raw = redis.call('HGET', key, field)
  local record = read(raw, shape)
  return record, (raw and not record) or false
end

-- Read the records under many fields, by field. The second value has true for each field whose record is corrupt. A
-- verb that changes a record must also change it in this table, because a batch may contain the same field twice.
local function get_all(key, fields, shape)
  local records, corrupt = {}, {}
  local raws = #fields > 0 and redis.call('HMGET', key, unpack(fields)) or {}
  -- Not ipairs, which calls a function for each item: this loop runs for every daemon of every batch.
  for i = 1, #fields do
    local field, raw = fields[i], raws[i]
    if raw then
      local record = read(raw, shape)
      if record then records[field] = record else corrupt[field] = true end
    end
  end
  return records, corrupt
end

-- Return the values that the items of a list have under one key.
local function column(items, key)
  local values = {}
  for i = 1, #items do values[i] = items[i][key] end
  return values
end

-- Return the length of the longest lease of a registered node in ms, 0 without nodes.
local function longest_lease(lengths)
  return tonumber(redis.call('ZREVRANGE', lengths, 0, 0, 'WITHSCORES')[2] or '0')
end

-- Return the id of this server's history of writes, '' if the server reports none. A primary gets a new id when it is
-- promoted or restarts. So a server that was a replica meanwhile, and has the data of another primary, does not have its
-- earlier id.
local function history()
  -- pcall: the command may not be permitted.
  local info = redis.pcall('INFO', 'replication')
  return kind_of(info) == 'string' and info:match('master_replid:(%x+)') or ''
end

-- Return what identifies this server with this history; run_id is the caller's, from its connection.
local function server_id(run_id)
  local id = history()
  return id ~= '' and run_id .. ':' .. id or run_id
end

-- Return whether a server's id, as a monitor knows it, is of another history than this one.
local function has_other_history(server)
  local id = history()
  return id ~= '' and server:match(':(%x+)$') ~= id
end

-- Forget that a monitor has confirmed another server: the data has been on this one meanwhile, and may lack the last
-- writes when the other server has it again.
local function unconfirm_others(cluster, run_id)
  local confirmed = run_id ~= '' and redis.call('HGET', cluster, 'server')
  if confirmed and confirmed ~= server_id(run_id) then redis.call('HDEL', cluster, 'server') end
end

-- Return whether all known leases have ended: no node has reached Redis for a while.
local function all_leases_ended(leases, now)
  local last = redis.call('ZREVRANGE', leases, 0, 0, 'WITHSCORES')[2]
  return last ~= nil and tonumber(last) <= now
end

local function put(key, field, record)
  redis.call('HSET', key, field, cjson.encode(record))
end

-- Append a field and its record to a list for write_all.
local function put_later(list, field, record)
  list[#list + 1] = field
  list[#list + 1] = cjson.encode(record)
end

-- Run one command on a key with all arguments of a list, unless the list is empty.
local function write_all(command, key, list)
  if #list > 0 then redis.call(command, key, unpack(list)) end
end

-- Record the queues of a node that left or was lost. The monitor deletes them from the broker, unless the node returns.
local function remember(gone, node, record)
  if record then
    local queues = {at_ms = now_ms(), queue = record.queue, spawn_queue = record.spawn_queue}
    -- pcall: a server that is out of memory refuses this write, and must not keep the node from leaving.
    redis.pcall('HSET', gone, node, cjson.encode(queues))
  end
end

-- Remember that daemons were forgotten or that an incarnation has left, each under the token of that moment. What was
-- sent before that and arrives late must not bring them back. The last 1,000 are kept, and all those of the last ten
-- minutes, which is longer than a request can be under way.
local ENDED_KEPT, ENDED_US = 1000, 600 * 1000000
local function remember_ended(ended, members, token)
  local scored = {}
  for _, member in ipairs(members) do
    scored[#scored + 1] = text(token)
    scored[#scored + 1] = member
  end
  write_all('ZADD', ended, scored)
  if redis.call('ZCARD', ended) > ENDED_KEPT then
    redis.call('ZREMRANGEBYSCORE', ended, '-inf', text(token - ENDED_US))
  end
end

-- Return whether an incarnation has left, so that a request in its name is late.
local function has_left(ended, incarnation)
  return redis.call('ZSCORE', ended, 'incarnation:' .. incarnation) ~= false
end

-- Return whether a daemon was forgotten after a start under this token.
local function forgotten_since(ended, name, token)
  local then_us = redis.call('ZSCORE', ended, 'daemon:' .. name)
  return then_us ~= false and tonumber(then_us) > tonumber(token)
end

-- Return the leader's record, or nil without a leader. A value that is corrupt, or that expires later than one lease
-- from now, counts as absent: it has no expiry, or Redis's clock was set back, and would lock out all candidates.
local function leader_of(monitor)
  -- pcall: the key may hold another type.
  local raw = redis.pcall('GET', monitor)
  local leader = kind_of(raw) == 'string' and read(raw, LEADER) or nil
  if not leader then return nil end
  local left, ttl = redis.call('PTTL', monitor), tonumber(leader.ttl_ms or '')
  if left < 0 or (ttl and left > ttl) then return nil end
  return leader
end

-- Return whether the monitor's lease is held under this epoch.
local function leads(monitor, epoch)
  local raw = redis.pcall('GET', monitor)
  local leader = kind_of(raw) == 'string' and read(raw, LEADER) or nil
  return leader ~= nil and leader.epoch == epoch
end
