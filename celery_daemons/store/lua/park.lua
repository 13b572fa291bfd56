-- park: record that no node can run daemons, and why.
--
-- include: _daemons
--
-- KEYS[1] monitor  string
-- KEYS[2] specs    hash
-- KEYS[3] book     hash
-- KEYS[4] journal  stream
-- KEYS[5] counts      hash
-- KEYS[6] unhealthy  zset
-- ARGV[1] epoch
-- ARGV[2] items    JSON [[name, reason], ...]
--
-- Returns how many records changed, or -1 if the epoch is over. A record that already has the reason does not change.
if not leads(KEYS[1], ARGV[1]) then return -1 end
local items = cjson.decode(ARGV[2])
local names = column(items, 1)
local daemons = open_daemons({specs = KEYS[2], book = KEYS[3], counts = KEYS[5], unhealthy = KEYS[6]})
read_specs(daemons, names)
read_entries(daemons, names)
local parked = {}
for _, item in ipairs(items) do
  local name = item[1]
  local spec, record = daemons.specs[name], daemons.entries[name] or {token = '0'}
  local recorded = record.status == 'unplaceable' and record.error == item[2]
  if spec and spec.desired == 'running' and not daemons.corrupt[name] and not record.node and not recorded then
    edit(daemons, name)
    record.launcher, record.status, record.error = spec.launcher, 'unplaceable', item[2]
    put_entry(daemons, name, record)
    parked[#parked + 1] = {name, record.token, item[2]}
  end
end
save(daemons)
journal(KEYS[4], 'park', nil, ARGV[1], nil, parked, 'monitor')
return #parked
