-- ask: store a question for the agent of a node, which waits for it.
--
-- KEYS[1] nodes   hash
-- KEYS[2] leases  zset
-- KEYS[3] bell    list of the node
-- ARGV[1] node
-- ARGV[2] id      of the question; the answer goes to the key of that id
-- ARGV[3] question  JSON
-- ARGV[4] ttl_ms  how long the client waits; after that, the agent drops the question
-- ARGV[5] most    questions that may wait
--
-- Returns 1; 0 if no node of that name has a lease that runs; -1 if too many questions wait.
local record = get(KEYS[1], ARGV[1], NODE)
local now = now_ms()
local lease = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
if not record or lease <= now then return 0 end
if redis.call('LLEN', KEYS[3]) >= tonumber(ARGV[5]) then return -1 end
local head = text(now + tonumber(ARGV[4])) .. ' ' .. record.incarnation .. ' ' .. ARGV[2] .. ' '
redis.call('RPUSH', KEYS[3], head .. ARGV[3])
redis.call('PEXPIRE', KEYS[3], tonumber(ARGV[4]) + 1000)
return 1
