-- answer: store the answer to a question for the process that waits for it.
--
-- KEYS[1] answer  list
-- ARGV[1] answer  JSON
-- ARGV[2] ttl_ms  after which an answer that was not fetched expires
--
-- Returns 1.
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
