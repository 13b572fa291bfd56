-- held: what the book says is on a node, a page at a time; how a node that missed a spawn task catches up.
--
-- KEYS[1] held        set     of the node
-- KEYS[2] book        hash
-- KEYS[3] generation  string  of the node
-- ARGV[1] node
-- ARGV[2] cursor      '0' for the first page
-- ARGV[3] size        of a page, about
--
-- A name whose entry says otherwise is dropped from the set: after a fail-over to a replica that lacked the last writes
-- another node may have won the name, and a set that outlives its entries would never let the node leave. An entry that
-- cannot be read says nothing.
--
-- Returns {generation, cursor of the next page, name, record, name, record, ...}; the cursor is '0' after the last page.
-- What is in the set from the first page to the last is on one of them.
local page = redis.call('SSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
local reply = {tonumber(redis.call('GET', KEYS[3]) or '0'), page[1]}
local names, size = page[2], tonumber(ARGV[3])
-- Of a set that Redis keeps in its compact form the first page is all of it, more perhaps than Lua can unpack.
for first = 1, #names, size do
  local some = {unpack(names, first, math.min(#names, first + size - 1))}
  local raws = redis.call('HMGET', KEYS[2], unpack(some))
  for i, name in ipairs(some) do
    local raw = raws[i]
    local record = read(raw, ENTRY)
    if not raw or (record and record.node ~= ARGV[1]) then
      redis.call('SREM', KEYS[1], name)
    else
      reply[#reply + 1] = name
      reply[#reply + 1] = raw
    end
  end
end
return reply
