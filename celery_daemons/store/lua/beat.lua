-- beat: renew a node's lease.
--
-- KEYS[1] cluster     hash    heard_ms: time of the first heartbeat after all leases had ended
-- KEYS[2] nodes       hash
-- KEYS[3] leases      zset
-- KEYS[4] generation  string
-- KEYS[5] monitor     string
-- KEYS[6] lease_lengths  zset
-- ARGV[1] node
-- ARGV[2] incarnation
-- ARGV[3] ttl_ms
--
-- Returns {1, generation, created_ms, 1 if a monitor leads else 0, now_ms, longest lease in ms, history of the server,
-- why the node takes no daemons or '', 1 if the node drains else 0}; {0} if another incarnation is registered; {-1} if
-- the data of the cluster or of the node is lost.
local created = redis.call('HGET', KEYS[1], 'created_ms')
if not created then return {-1} end
local record = get(KEYS[2], ARGV[1], NODE)
-- After a loss of data, another node may already have created the cluster key again. The node's own record shows the
-- loss then. A node that was swept also gets this answer; its lease had ended before.
if not record then return {-1} end
if record.incarnation ~= ARGV[2] then return {0} end
local now = now_ms()
local silent = all_leases_ended(KEYS[3], now)
-- On a server that is out of memory, Redis denies a script whose first write may need memory. ZREM needs none, and the
-- ZADD that follows is then allowed. Otherwise, a queue that fills the server would end the lease of every node.
redis.call('ZREM', KEYS[3], '')
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[3]), ARGV[1])
if silent then redis.call('HSET', KEYS[1], 'heard_ms', text(now)) end
redis.call('ZADD', KEYS[6], ARGV[3], ARGV[1])
local led = leader_of(KEYS[5]) and 1 or 0
local generation = tonumber(redis.call('GET', KEYS[4]) or '0')
local draining = record.status == 'draining' and 1 or 0
return {1, generation, created, led, now, longest_lease(KEYS[6]), history(), record.problem or '', draining}
