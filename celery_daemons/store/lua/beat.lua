-- beat: renew a node's lease.
--
-- KEYS[1] cluster     hash    heard_ms: when the first node was heard again after a silence of all
-- KEYS[2] nodes       hash
-- KEYS[3] leases      zset
-- KEYS[4] generation  string
-- KEYS[5] monitor     string  who leads
-- ARGV[1] node
-- ARGV[2] incarnation
-- ARGV[3] ttl_ms
--
-- Returns {1, generation, created_ms, 1 if somebody leads else 0}, {0} when another incarnation is registered, or {-1}
-- when the cluster's data is gone, or the node's.
local created = redis.call('HGET', KEYS[1], 'created_ms')
if not created then return {-1} end
local record = get(KEYS[2], ARGV[1], NODE)
-- Another node may have told of itself first and made the cluster key: its absence alone does not show the loss. A node
-- that was swept gets this answer too; its own lease had ended before.
if not record then return {-1} end
if record.incarnation ~= ARGV[2] then return {0} end
local now = now_ms()
local silent = silence(KEYS[3], now)
-- Redis denies a script on a full server if its first write may need memory. This one needs none, and neither does the
-- next: a queue that fills the server must not cost every node its lease.
redis.call('ZREM', KEYS[3], '')
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[3]), ARGV[1])
if silent then redis.call('HSET', KEYS[1], 'heard_ms', text(now)) end
return {1, tonumber(redis.call('GET', KEYS[4]) or '0'), created, redis.call('EXISTS', KEYS[5])}
