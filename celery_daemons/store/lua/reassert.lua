-- reassert: restore the record and the daemons of a node, after Redis lost data or promoted a replica that lacked the
-- last writes.
--
-- include: _daemons
--
-- KEYS[1] cluster     hash
-- KEYS[2] nodes       hash
-- KEYS[3] leases      zset
-- KEYS[4] specs       hash
-- KEYS[5] book        hash
-- KEYS[6] held        set     of the node
-- KEYS[7] generation  string  of the node
-- KEYS[8] clock       string
-- KEYS[9] journal     stream
-- KEYS[10] gone       hash    queues of departed nodes
-- KEYS[11] lease_lengths  zset
-- KEYS[12] ended      zset    daemons that were forgotten, and incarnations that have left
-- KEYS[13] counts     hash
-- KEYS[14] unhealthy  zset
-- ARGV[1] node
-- ARGV[2] record      the node's record as JSON
-- ARGV[3] ttl_ms
-- ARGV[4] layout
-- ARGV[5] items       JSON [{name, token, launcher, arguments, version, status, pid, restarts}, ...]
-- ARGV[6] server      run id of the server that the caller is connected to, or ''
-- ARGV[7] longest_ms  the longest lease that the caller has seen registered before the loss, or '0'
--
-- Only for an incarnation whose lease still runs by the clock of its machine. A higher token in the book wins.
--
-- Returns {generation, 1 or 0 per item} with 0 if the book has a newer token, or if the daemon was forgotten after that
-- start and has been released; {'taken'} if the lease of another incarnation runs or this one has left; {'layout',
-- layout of the namespace} if that differs from the caller's.
local now = now_ms()
local layout = redis.call('HGET', KEYS[1], 'layout')
if layout and layout ~= ARGV[4] then return {'layout', layout} end
local node, registered = cjson.decode(ARGV[2]), get(KEYS[2], ARGV[1], NODE)
local lease = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or '0')
if registered and registered.incarnation ~= node.incarnation and lease > now then return {'taken'} end
if has_left(KEYS[12], node.incarnation) then return {'taken'} end
if not layout then redis.call('HSET', KEYS[1], 'layout', ARGV[4], 'created_ms', text(now)) end
unconfirm_others(KEYS[1], ARGV[6])
-- A node with this lease may not have reported yet. The monitor waits for it before it confirms the server.
local lost = math.max(tonumber(ARGV[7]), tonumber(redis.call('HGET', KEYS[1], 'lost_lease_ms') or '0') or 0)
if lost > longest_lease(KEYS[11]) then redis.call('HSET', KEYS[1], 'lost_lease_ms', text(lost)) end
node.started_ms = now
if registered and registered.incarnation == node.incarnation then
  node.started_ms = registered.started_ms
  -- Keep an operator's drain: the node's own record does not have it.
  if registered.status == 'draining' then node.status = 'draining' end
end
redis.call('HDEL', KEYS[10], ARGV[1])
put(KEYS[2], ARGV[1], node)
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[3]), ARGV[1])
redis.call('ZADD', KEYS[11], ARGV[3], ARGV[1])
local highest = mint(KEYS[8], 1)
local reply, done = {0}, {}
local items = cjson.decode(ARGV[5])
local names = column(items, 'name')
local daemons = open_daemons({specs = KEYS[4], book = KEYS[5], counts = KEYS[13], unhealthy = KEYS[14]})
read_specs(daemons, names)
read_entries(daemons, names)
for i, item in ipairs(items) do
  local spec, record = daemons.specs[item.name], daemons.entries[item.name]
  highest = math.max(highest, tonumber(item.token))
  local newer = record and tonumber(record.token) > tonumber(item.token)
  -- Without an entry and a spec, the daemon was lost with the data, unless a client has forgotten it: then it has been
  -- released since, and the node sent this before.
  local forgotten = not record and forgotten_since(KEYS[12], item.name, item.token)
  if newer or (forgotten and not spec) then
    reply[i + 1] = 0
  else
    local same = record and record.token == item.token and record or {}
    -- If the entry exists and the spec does not, the spec was not lost: a client has forgotten the daemon.
    if not record and not spec then
      edit(daemons, item.name)
      put_spec(daemons, item.name, {
        launcher = item.launcher, arguments = item.arguments, desired = 'running', version = item.version,
      })
    elseif not record then
      -- A client or a scanner has recorded the lost spec again. If that is what runs here, its new version must not
      -- restart it.
      local unchanged = spec and spec.launcher == item.launcher and spec.arguments == item.arguments
      if unchanged and not spec.target and not spec.avoid then
        edit(daemons, item.name)
        spec.version = item.version
        put_spec(daemons, item.name, spec)
      end
    end
    edit(daemons, item.name)
    put_entry(daemons, item.name, {
      launcher = item.launcher, node = ARGV[1], incarnation = node.incarnation, token = item.token,
      -- Keep a recall that the node has not received yet.
      status = same.status == 'stopping' and 'stopping' or item.status,
      version = item.version, pid = item.pid, started_ms = same.started_ms or now, restarts = item.restarts,
      error = same.error, why = same.why, avoid = same.avoid,
    })
    redis.call('SADD', KEYS[6], item.name)
    reply[i + 1] = 1
    done[#done + 1] = {item.name, item.token, item.status}
  end
end
save(daemons)
redis.call('SET', KEYS[8], text(highest))
-- Higher than any generation that was lost with the data.
reply[1] = mint(KEYS[7], 1)
journal(KEYS[9], 'reassert', ARGV[1], nil, node.incarnation, done)
return reply
