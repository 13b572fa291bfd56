-- release: give daemons back, if the caller still holds them.
--
-- KEYS[1] specs    hash
-- KEYS[2] book     hash
-- KEYS[3] held     set     of the node
-- KEYS[4] journal  stream
-- KEYS[5] traces   hash
-- ARGV[1] node
-- ARGV[2] items    JSON [{name, token, outcome, restarts, error, trace}, ...]
--
-- The outcome 'finished' also stops the daemon for good: its restart policy wants no other life of this version. After
-- 'exhausted' the node is shunned, if another fits, until another one has given the daemon back.
--
-- Returns 1 or 0 per item: 0 when a newer token, another node or nobody holds the name.
local reply, done, kept, gone, left = {}, {}, {}, {}, {}
-- As in beat: what is given back frees memory, and a full server must not stop a node from draining.
redis.call('SREM', KEYS[3], '')
local items = cjson.decode(ARGV[2])
local names = column(items, 'name')
local specs, records = get_all(KEYS[1], names, SPEC), get_all(KEYS[2], names, ENTRY)
for i, item in ipairs(items) do
  local name = item.name
  local spec, record = specs[name], records[name]
  reply[i] = 0
  -- Also when the book no longer names this node: a set that outlives its entries would never empty.
  if not record or record.node ~= ARGV[1] then
    left[#left + 1] = name
  elseif record.token == item.token then
    -- Replaced or restarted meanwhile, it is another life that is wanted than the one that finished.
    if item.outcome == 'finished' and spec and spec.version == record.version then
      spec.desired = 'stopped'
      put(KEYS[1], name, spec)
    end
    record.restarts = item.restarts
    if item.error then record.error = item.error end
    if item.trace then redis.call('HSET', KEYS[5], name, item.trace) end
    if item.outcome == 'exhausted' then
      record.avoid = ARGV[1]
    elseif record.avoid ~= ARGV[1] then
      record.avoid = nil
    end
    unplace(spec, name, record, 'pending', kept, gone)
    left[#left + 1] = name
    reply[i] = 1
    done[#done + 1] = {name, item.token, item.outcome}
  end
end
write_all('HSET', KEYS[2], kept)
write_all('HDEL', KEYS[2], gone)
write_all('HDEL', KEYS[5], gone)
write_all('SREM', KEYS[3], left)
journal(KEYS[4], 'release', ARGV[1], nil, nil, done)
return reply
