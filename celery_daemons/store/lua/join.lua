-- join: register a new incarnation of a node and give it a lease.
--
-- KEYS[1] cluster     hash    layout, created_ms, heard_ms
-- KEYS[2] nodes       hash    node -> record
-- KEYS[3] leases      zset    node -> end of lease in server ms
-- KEYS[4] generation  string  of this node
-- KEYS[5] journal     stream
-- KEYS[6] clock       string
-- KEYS[7] gone        hash    queues of departed nodes
-- KEYS[8] lease_lengths  zset   node -> length of its lease in ms
-- KEYS[9] ended       zset    incarnations that have left
-- ARGV[1] node
-- ARGV[2] record      the node's record as JSON
-- ARGV[3] ttl_ms
-- ARGV[4] previous    an incarnation that the caller knows to be dead, or ''
-- ARGV[5] layout      the caller's layout version
-- ARGV[6] server      run id of the server that the caller is connected to, or ''
-- ARGV[7] ended       end of another incarnation's lease that has ended by the caller's clock; '0' for none; '' to
--                     decide by Redis's clock
--
-- Daemons of an earlier incarnation that was not swept stay assigned to the node, and the new incarnation claims them.
--
-- A caller that waits for a name measures the wait by its own clock: Redis's clock may be set meanwhile.
--
-- Returns {'joined', generation, created_ms, now_ms, longest lease in ms, history of the server}; {'taken', ms left,
-- incarnation, now_ms, end of its lease, length of its lease in ms} if the lease of another incarnation runs;
-- {'layout', layout of the namespace} if that differs from the caller's; {'left'} if the incarnation has left: the
-- request is late.
local node, ttl, previous = ARGV[1], tonumber(ARGV[3]), ARGV[4]
local now = now_ms()
local layout = redis.call('HGET', KEYS[1], 'layout')
if layout and layout ~= ARGV[5] then return {'layout', layout} end
local record = cjson.decode(ARGV[2])
if has_left(KEYS[9], record.incarnation) then return {'left'} end
local held = get(KEYS[2], node, NODE)
local lease = tonumber(redis.call('ZSCORE', KEYS[3], node) or '0')
-- A corrupt record does not say which incarnation holds the lease. Until the lease ends, assume another one.
local holder = held and held.incarnation or ''
local lease_end = lease
if ARGV[7] ~= '' and lease > 0 then lease = lease == tonumber(ARGV[7]) and 0 or math.huge end
if lease > now and holder ~= record.incarnation and (holder == '' or holder ~= previous) then
  local length = tonumber(redis.call('ZSCORE', KEYS[8], node) or '0')
  return {'taken', lease_end - now, holder, now, lease_end, length}
end
if not layout then
  redis.call('HSET', KEYS[1], 'layout', ARGV[5], 'created_ms', text(now))
  mint(KEYS[6], 1)
end
unconfirm_others(KEYS[1], ARGV[6])
if all_leases_ended(KEYS[3], now) then redis.call('HSET', KEYS[1], 'heard_ms', text(now)) end
record.started_ms = now
redis.call('HDEL', KEYS[7], node)
put(KEYS[2], node, record)
redis.call('ZADD', KEYS[3], now + ttl, node)
redis.call('ZADD', KEYS[8], ttl, node)
-- Not counted from 1: after a loss of data, the counter could reach a value that an agent remembers as current.
local generation = mint(KEYS[4], 1)
journal(KEYS[5], 'join', node, nil, record.incarnation)
local created = redis.call('HGET', KEYS[1], 'created_ms')
return {'joined', generation, created, now, longest_lease(KEYS[8]), history()}
