-- bury: forget the queues of a departed node, after they were deleted from the broker.
--
-- KEYS[1] monitor  string
-- KEYS[2] gone     hash
-- ARGV[1] epoch
-- ARGV[2] node
--
-- Returns 1, or 0 if the epoch is over or the node has come back.
if not leads(KEYS[1], ARGV[1]) then return 0 end
return redis.call('HDEL', KEYS[2], ARGV[2])
