-- join: take part in the cluster as a new incarnation of a node.
--
-- KEYS[1] cluster     hash    layout, created_ms, heard_ms
-- KEYS[2] nodes       hash    node -> record
-- KEYS[3] leases      zset    node -> end of lease in server ms
-- KEYS[4] generation  string  of this node
-- KEYS[5] journal     stream
-- KEYS[6] clock       string
-- KEYS[7] gone        hash    queues of nodes that are gone
-- ARGV[1] node
-- ARGV[2] record      the node's record as JSON
-- ARGV[3] ttl_ms
-- ARGV[4] previous    the incarnation that the caller has seen dead, or ''
-- ARGV[5] layout      the caller's layout version
--
-- The daemons of an earlier incarnation whose lease has ended stay assigned to the node: the new one claims them.
--
-- Returns {'joined', generation, created_ms}, {'taken', ms left, incarnation} or {'layout', the one found}.
local node, ttl, previous = ARGV[1], tonumber(ARGV[3]), ARGV[4]
local now = now_ms()
local layout = redis.call('HGET', KEYS[1], 'layout')
if layout and layout ~= ARGV[5] then return {'layout', layout} end
local record = cjson.decode(ARGV[2])
local held = get(KEYS[2], node, NODE)
local lease = tonumber(redis.call('ZSCORE', KEYS[3], node) or '0')
-- A record that cannot be read names no holder; the lease beside it still has one, until it ends.
local holder = held and held.incarnation or ''
if lease > now and holder ~= record.incarnation and (holder == '' or holder ~= previous) then
  return {'taken', lease - now, holder}
end
if not layout then
  redis.call('HSET', KEYS[1], 'layout', ARGV[5], 'created_ms', text(now))
  mint(KEYS[6], 1)
end
if silence(KEYS[3], now) then redis.call('HSET', KEYS[1], 'heard_ms', text(now)) end
record.started_ms = now
redis.call('HDEL', KEYS[7], node)
put(KEYS[2], node, record)
redis.call('ZADD', KEYS[3], now + ttl, node)
-- Not counted from 1: after a loss of data it would come by the value that the agent still has in mind.
local generation = mint(KEYS[4], 1)
journal(KEYS[5], 'join', node, nil, record.incarnation)
return {'joined', generation, redis.call('HGET', KEYS[1], 'created_ms')}
