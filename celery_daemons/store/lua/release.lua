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
-- 'exhausted' the node is shunned, if another fits.
--
-- Returns 1 or 0 per item: 0 when a newer token, another node or nobody holds the name.
local reply, done = {}, {}
-- As in beat: what is given back frees memory, and a full server must not stop a node from draining.
redis.call('SREM', KEYS[3], '')
for i, item in ipairs(cjson.decode(ARGV[2])) do
  local name, record = item.name, get(KEYS[2], item.name, ENTRY)
  reply[i] = 0
  if record and record.node == ARGV[1] and record.token == item.token then
    local spec = get(KEYS[1], name, SPEC)
    -- Replaced or restarted meanwhile, it is another life that is wanted than the one that finished.
    if item.outcome == 'finished' and spec and spec.version == record.version then
      spec.desired = 'stopped'
      put(KEYS[1], name, spec)
    end
    record.restarts = item.restarts
    if item.error then record.error = item.error end
    if item.trace then redis.call('HSET', KEYS[5], name, item.trace) end
    record.shun = item.outcome == 'exhausted' and ARGV[1] or nil
    unplace(KEYS[2], KEYS[1], KEYS[5], name, record, 'pending')
    reply[i] = 1
    done[#done + 1] = {name, item.token, item.outcome}
  end
  -- Also when the book no longer names this node: a set that outlives its entries would never empty.
  if not record or record.node ~= ARGV[1] or reply[i] == 1 then redis.call('SREM', KEYS[3], name) end
end
journal(KEYS[4], 'release', ARGV[1], nil, nil, done)
return reply
