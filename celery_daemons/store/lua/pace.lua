-- pace: stop the monitor from moving what may stay where it is, or let it do so again.
--
-- KEYS[1] cluster  hash
-- KEYS[2] journal  stream
-- ARGV[1] what     'paused' or 'resumed'
--
-- Returns 1.
if ARGV[1] == 'paused' then
  redis.call('HSET', KEYS[1], 'rebalance', 'paused')
else
  redis.call('HDEL', KEYS[1], 'rebalance')
end
journal(KEYS[2], 'rebalance', nil, nil, ARGV[1])
return 1
