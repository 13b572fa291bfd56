-- pace: pause rebalancing, or resume it.
--
-- KEYS[1] cluster  hash
-- KEYS[2] journal  stream
-- ARGV[1] state    'paused' or 'resumed'
-- ARGV[2] actor    the person or process that asked
--
-- The state is in Redis, so that it also holds for the next monitor.
--
-- Returns 1.
if ARGV[1] == 'paused' then
  redis.call('HSET', KEYS[1], 'rebalance', 'paused')
else
  redis.call('HDEL', KEYS[1], 'rebalance')
end
journal(KEYS[2], 'rebalance', nil, nil, ARGV[1], nil, ARGV[2])
return 1
