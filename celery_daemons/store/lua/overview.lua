-- overview: the state of the cluster in numbers whose cost does not depend on how many daemons there are.
--
-- KEYS[1] cluster  hash
-- KEYS[2] leases   zset
-- KEYS[3] specs    hash
-- KEYS[4] book     hash
--
-- Returns {now_ms, created_ms or '', how many specs, how many book entries, the server that the monitor has confirmed
-- or '', when a silence of all nodes last ended or '', 'paused' while nothing shall be rebalanced or '', node, end of its
-- lease, ...}.
local reply = {
  now_ms(), redis.call('HGET', KEYS[1], 'created_ms') or '', redis.call('HLEN', KEYS[3]), redis.call('HLEN', KEYS[4]),
  redis.call('HGET', KEYS[1], 'server') or '', redis.call('HGET', KEYS[1], 'heard_ms') or '',
  redis.call('HGET', KEYS[1], 'rebalance') or '',
}
for _, value in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')) do reply[#reply + 1] = value end
return reply
