-- held: read the daemons that are assigned to a node, page by page; a node does so after it has missed a spawn task.
--
-- KEYS[1] held        set     of the node
-- KEYS[2] book        hash
-- KEYS[3] generation  string  of the node
-- ARGV[1] node
-- ARGV[2] cursor      '0' for the first page
-- ARGV[3] size        approximate size of a page
--
-- Names whose entry is missing or names another node are removed from the set. Such names appear after a fail-over to a
-- replica that lacked the last writes; if they stayed, the set would never be empty and the node could not leave. Names
-- with a corrupt entry stay.
--
-- Returns {generation, cursor of the next page, name, record, ...}; the cursor is '0' after the last page.
-- A name that is in the set from the first page to the last is on at least one page.
local page = redis.call('SSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
local reply = {tonumber(redis.call('GET', KEYS[3]) or '0'), page[1]}
local names, size = page[2], tonumber(ARGV[3])
-- If Redis stores the set in a compact encoding, the first page is the whole set, which may exceed the limit of unpack.
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
