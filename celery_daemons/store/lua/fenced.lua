-- fenced: write to a key of the user, unless a newer token has written to the key before.
--
-- KEYS[1] key      any type  the key to write
-- KEYS[2] fence    string    the highest token that has written to the key; the user's to delete, never expires
-- ARGV[1] token    of the daemon that writes
-- ARGV[2] command  the command that writes, for example SET or XADD
-- ARGV[3…]         arguments of the command after the key
--
-- Returns {1, the command's reply}, or {0, the newer token}.
local newest = redis.call('GET', KEYS[2])
if newest and tonumber(newest) > tonumber(ARGV[1]) then return {0, newest} end
redis.call('SET', KEYS[2], ARGV[1])
return {1, redis.call(ARGV[2], KEYS[1], unpack(ARGV, 3))}
