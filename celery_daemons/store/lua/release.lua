-- release: take daemons off the caller, if it still holds them.
--
-- include: _daemons
--
-- KEYS[1] specs    hash
-- KEYS[2] book     hash
-- KEYS[3] held     set     of the node
-- KEYS[4] journal  stream
-- KEYS[5] traces   hash
-- KEYS[6] counts      hash
-- KEYS[7] unhealthy  zset
-- ARGV[1] node
-- ARGV[2] items    JSON [{name, token, outcome, restarts, error, trace}, ...]
--
-- The outcome 'finished' sets the desired state to 'stopped', because the restart policy does not start this version
-- again. The outcome 'exhausted' makes the monitor avoid this node, if another node fits, until another node has
-- released the daemon.
--
-- Returns 1 or 0 per item: 0 if the book has a newer token, another node or no node for the daemon. No lease is needed:
-- a node may release after its lease has ended, as long as its tokens are current.
local reply, done, left = {}, {}, {}
-- SREM first, as ZREM in beat: releasing frees memory, and a server that is out of memory must not stop a drain.
redis.call('SREM', KEYS[3], '')
local items = cjson.decode(ARGV[2])
local names = column(items, 'name')
local keys = {specs = KEYS[1], book = KEYS[2], traces = KEYS[5], counts = KEYS[6], unhealthy = KEYS[7]}
local daemons = open_daemons(keys)
read_specs(daemons, names)
read_entries(daemons, names)
for i = 1, #items do
  local item = items[i]
  local name = item.name
  local spec, record = daemons.specs[name], daemons.entries[name]
  reply[i] = 0
  -- Remove the name from the set even if the book no longer names this node: else the set would never be empty.
  if not record or record.node ~= ARGV[1] then
    left[#left + 1] = name
  elseif record.token == item.token then
    -- If the spec was replaced or restarted meanwhile, its new version has not finished and must still run.
    if item.outcome == 'finished' and spec and spec.version == record.version then
      edit(daemons, name)
      spec.desired = 'stopped'
      put_spec(daemons, name, spec)
    end
    record.restarts = item.restarts
    if item.error then record.error = item.error end
    if item.trace then redis.call('HSET', KEYS[5], name, item.trace) end
    if item.outcome == 'exhausted' then
      record.avoid = ARGV[1]
    elseif record.avoid ~= ARGV[1] then
      record.avoid = nil
    end
    unplace(daemons, name, record, 'pending')
    left[#left + 1] = name
    reply[i] = 1
    done[#done + 1] = {name, item.token, item.outcome}
  end
end
save(daemons)
write_all('SREM', KEYS[3], left)
journal(KEYS[4], 'release', ARGV[1], nil, nil, done)
return reply
