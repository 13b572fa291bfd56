-- assign: assign daemons that are on no node to a node.
--
-- include: _daemons
--
-- KEYS[1] monitor     string
-- KEYS[2] nodes       hash
-- KEYS[3] specs       hash
-- KEYS[4] book        hash
-- KEYS[5] held        set     of the node
-- KEYS[6] generation  string  of the node
-- KEYS[7] clock       string
-- KEYS[8] journal     stream
-- KEYS[9] cluster     hash
-- KEYS[10] counts     hash
-- KEYS[11] unhealthy  zset
-- ARGV[1] epoch       of the monitor
-- ARGV[2] node
-- ARGV[3] incarnation
-- ARGV[4] items       JSON [[name, cause], ...]
--
-- Needs the monitor's lease, so that a deposed monitor changes nothing.
--
-- Returns {generation, token or '', ...} with '' for a daemon that is already on a node, stopped or unknown; {-1} if
-- the epoch is over; {0} if the node is not up under that incarnation, or cannot start processes; {-2} if the monitor
-- has confirmed this server with another history: the book may lack what was written last.
if not leads(KEYS[1], ARGV[1]) then return {-1} end
local confirmed = redis.call('HGET', KEYS[9], 'server')
if confirmed and has_other_history(confirmed) then return {-2} end
local node = get(KEYS[2], ARGV[2], NODE)
local takes = node and node.status == 'up' and (node.problem or '') == ''
if not takes or node.incarnation ~= ARGV[3] then return {0} end
local items = cjson.decode(ARGV[4])
local names = column(items, 1)
local daemons = open_daemons({specs = KEYS[3], book = KEYS[4], counts = KEYS[10], unhealthy = KEYS[11]})
read_specs(daemons, names)
read_entries(daemons, names)
local token = mint(KEYS[7], #items)
local reply, done, held = {0}, {}, {}
for i = 1, #items do
  local item = items[i]
  local name = item[1]
  local spec, record = daemons.specs[name], daemons.entries[name]
  -- A corrupt entry may be that of a running daemon.
  if not daemons.corrupt[name] and spec and spec.desired == 'running' and not (record and record.node) then
    edit(daemons, name)
    record = record or {}
    if record.status == 'unplaceable' then record.error = nil end
    reply[i + 1] = text(token)
    put_entry(daemons, name, {
      launcher = spec.launcher, node = ARGV[2], incarnation = ARGV[3], status = 'assigned', token = reply[i + 1],
      version = spec.version, restarts = record.restarts, error = record.error, why = item[2], avoid = record.avoid,
    })
    held[#held + 1] = name
    done[#done + 1] = {name, reply[i + 1], item[2]}
    token = token + 1
  else
    reply[i + 1] = ''
  end
end
save(daemons)
write_all('SADD', KEYS[5], held)
if #done > 0 then redis.call('INCR', KEYS[6]) end
reply[1] = tonumber(redis.call('GET', KEYS[6]) or '0')
journal(KEYS[8], 'assign', ARGV[2], ARGV[1], nil, done, 'monitor')
return reply
