-- resign: end the monitor's lease, if the caller still holds it, so that another node can lead at once.
--
-- KEYS[1] monitor  string
-- KEYS[2] journal  stream
-- ARGV[1] epoch
-- ARGV[2] cause
--
-- Returns 1 if the lease was ended, 0 if the epoch was already over.
if not leads(KEYS[1], ARGV[1]) then return 0 end
local leader = read(redis.call('GET', KEYS[1]), LEADER)
redis.call('DEL', KEYS[1])
journal(KEYS[2], 'resign', leader.node, ARGV[1], ARGV[2])
return 1
