-- summary: read the counts of daemons, with the nodes and leases that say which of them are valid, at one moment.
--
-- KEYS[1] counts   hash
-- KEYS[2] nodes    hash
-- KEYS[3] leases   zset
-- KEYS[4] monitor  string
-- KEYS[5] scans    hash
-- KEYS[6] cluster  hash
-- KEYS[7] journal  stream
--
-- Returns {now_ms, id of the newest entry of the journal or '', 'paused' while rebalancing is paused or '', the leader's
-- record or '', counts, nodes, leases, scans}, the last four as lists of fields and values.
local newest = redis.call('XREVRANGE', KEYS[7], '+', '-', 'COUNT', 1)[1]
-- pcall: these keys may hold another type.
local leader = redis.pcall('GET', KEYS[4])
local counts = redis.pcall('HGETALL', KEYS[1])
return {
  now_ms(), newest and newest[1] or '', redis.call('HGET', KEYS[6], 'rebalance') or '',
  type(leader) == 'string' and leader or '', counts.err and {} or counts, redis.call('HGETALL', KEYS[2]),
  redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[5]),
}
