-- leave: remove a node that holds no daemons from the cluster.
--
-- KEYS[1] nodes       hash
-- KEYS[2] leases      zset
-- KEYS[3] held        set     names assigned to the node
-- KEYS[4] generation  string
-- KEYS[5] journal     stream
-- KEYS[6] gone        hash    queues of departed nodes
-- KEYS[7] lease_lengths  zset
-- KEYS[8] clock       string
-- KEYS[9] ended       zset
-- ARGV[1] node
-- ARGV[2] incarnation
--
-- Returns 0 if the node left, the number of daemons if it still holds some, -1 if another incarnation is registered.
local record = get(KEYS[1], ARGV[1], NODE)
if not record or record.incarnation ~= ARGV[2] then return -1 end
local held = redis.call('SCARD', KEYS[3])
if held > 0 then return held end
-- HDEL first, because it needs no memory: on a server that is out of memory, the later writes are then allowed too.
redis.call('HDEL', KEYS[1], ARGV[1])
remember(KEYS[6], ARGV[1], record)
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[7], ARGV[1])
redis.call('DEL', KEYS[4])
remember_ended(KEYS[9], {'incarnation:' .. ARGV[2]}, mint(KEYS[8], 1))
journal(KEYS[5], 'leave', ARGV[1], nil, ARGV[2])
return 0
