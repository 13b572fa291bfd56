-- claim: take over daemons that are assigned to the caller, before it starts them.
--
-- include: _daemons
--
-- KEYS[1] nodes    hash
-- KEYS[2] leases   zset
-- KEYS[3] specs    hash
-- KEYS[4] book     hash
-- KEYS[5] clock    string
-- KEYS[6] journal  stream
-- KEYS[7] cluster  hash
-- KEYS[8] held     set     of the node
-- KEYS[9] counts      hash
-- KEYS[10] unhealthy  zset
-- ARGV[1] node
-- ARGV[2] incarnation
-- ARGV[3] items    JSON [[name, token], ...]
-- ARGV[4] server   run id of the server that the caller is connected to, or '' to skip the confirmation
--
-- The first start keeps the token of the assignment. Each later start, also by a new incarnation, gets a new token.
--
-- At most 8 MiB of arguments are read and returned in one call; the caller sends the items without a reply again.
--
-- Returns per item {token, launcher, arguments, version, restarts, node that has given up on the daemon or ''}, or
-- {'', reason of the refusal}; {'fenced'} if the node's lease has ended or another incarnation is registered;
-- {'unconfirmed'} if no monitor has confirmed this server with its present history yet.
local node = get(KEYS[1], ARGV[1], NODE)
local lease = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
if not node or node.incarnation ~= ARGV[2] or lease <= now_ms() then return {'fenced'} end
-- After a restart with old data, or on a promoted replica without the last writes, the book may name a node that the
-- daemon has left. The monitor confirms a server only after one lease, in which the daemon's present node reasserts it.
if ARGV[4] ~= '' and redis.call('HGET', KEYS[7], 'server') ~= server_id(ARGV[4]) then return {'unconfirmed'} end
local items = cjson.decode(ARGV[3])
local size, count = 0, #items
for i = 1, #items do
  size = size + redis.call('HSTRLEN', KEYS[3], items[i][1])
  if size > 8388608 and i > 1 then
    count = i - 1
    break
  end
end
for i = count + 1, #items do items[i] = nil end
local names = column(items, 1)
local daemons = open_daemons({specs = KEYS[3], book = KEYS[4], counts = KEYS[9], unhealthy = KEYS[10]})
read_specs(daemons, names)
read_entries(daemons, names)
local reply, done, stale = {}, {}, {}
for i = 1, #items do
  local item = items[i]
  local name = item[1]
  local spec, record = daemons.specs[name], daemons.entries[name]
  if not record or record.node ~= ARGV[1] then
    reply[i] = {'', 'not on this node'}
    -- Old data has left the name in the set. If it stayed, the set would never be empty and the node could not leave.
    if not daemons.corrupt[name] then stale[#stale + 1] = name end
  elseif record.token ~= item[2] then
    reply[i] = {'', 'superseded'}
  elseif record.status == 'stopping' or not spec or spec.desired ~= 'running' then
    reply[i] = {'', 'not wanted'}
  else
    edit(daemons, name)
    if record.status ~= 'assigned' or record.incarnation ~= ARGV[2] then
      record.token = text(mint(KEYS[5], 1))
    end
    -- A start on this node does not fulfil a move to another node. The version stays old, so the monitor recalls it.
    local moves = (spec.target and spec.target ~= ARGV[1]) or spec.avoid == ARGV[1]
    if not moves then record.version = spec.version end
    record.status, record.incarnation = 'starting', ARGV[2]
    record.launcher, record.pid, record.started_ms = spec.launcher, nil, nil
    put_entry(daemons, name, record)
    reply[i] = {record.token, spec.launcher, spec.arguments, record.version, record.restarts or 0, record.avoid or ''}
    done[#done + 1] = {name, record.token, ''}
  end
end
save(daemons)
write_all('SREM', KEYS[8], stale)
journal(KEYS[6], 'claim', ARGV[1], nil, nil, done)
return reply
