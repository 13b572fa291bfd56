-- held: what the book says is on a node; how a node that missed a spawn task catches up.
--
-- KEYS[1] held        set     of the node
-- KEYS[2] book        hash
-- KEYS[3] generation  string  of the node
--
-- Returns {generation, name, record or false, name, record or false, ...}.
local reply = {tonumber(redis.call('GET', KEYS[3]) or '0')}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  reply[#reply + 1] = name
  reply[#reply + 1] = redis.call('HGET', KEYS[2], name)
end
return reply
