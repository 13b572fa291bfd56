-- fenced: write to a key of the user, unless a newer token has written to the key before.
--
-- KEYS[1] key      any type  the key to write
-- KEYS[2] fence    string    the highest token that has written to the key; the user's to delete, never expires
-- ARGV[1] token    of the daemon that writes
-- ARGV[2] command  the command that writes, for example SET or XADD
-- ARGV[3] reply    what to return if the command is run in parts: 'sum' or 'last' of the replies
-- ARGV[4…]       arguments of the command after the key
--
-- Lua passes at most some thousands of arguments to a command. A longer HSET, HDEL, RPUSH, SADD or ZADD runs in parts,
-- each of an even number of arguments; the script as a whole is still atomic.
--
-- Returns {1, the command's reply}, or {0, the newer token}.
local newest = redis.call('GET', KEYS[2])
if newest and tonumber(newest) > tonumber(ARGV[1]) then return {0, newest} end
local reply = 0
for first = 4, math.max(4, #ARGV), 4000 do
  local part = redis.call(ARGV[2], KEYS[1], unpack(ARGV, first, math.min(#ARGV, first + 3999)))
  reply = (ARGV[3] == 'sum' and first > 4) and reply + part or part
end
-- After the write: if Redis refuses the write, because of its memory or of the type of the key, the fence must not move.
-- A server that is out of memory accepts this SET after a write that frees memory.
redis.call('SET', KEYS[2], ARGV[1])
return {1, reply}
