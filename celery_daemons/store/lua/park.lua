-- park: record that no node can run daemons, and why.
--
-- KEYS[1] monitor  string
-- KEYS[2] specs    hash
-- KEYS[3] book     hash
-- KEYS[4] journal  stream
-- ARGV[1] epoch
-- ARGV[2] items    JSON [[name, reason], ...]
--
-- Returns how many records changed, or -1 if the epoch is over. A record that already has the reason does not change.
if not leads(KEYS[1], ARGV[1]) then return -1 end
local items = cjson.decode(ARGV[2])
local names = column(items, 1)
local specs, records, corrupt = get_all(KEYS[2], names, SPEC), get_all(KEYS[3], names, ENTRY)
local parked, written = {}, {}
for _, item in ipairs(items) do
  local name = item[1]
  local spec, record = specs[name], records[name] or {token = '0'}
  local recorded = record.status == 'unplaceable' and record.error == item[2]
  if spec and spec.desired == 'running' and not corrupt[name] and not record.node and not recorded then
    record.launcher, record.status, record.error = spec.launcher, 'unplaceable', item[2]
    records[name] = record
    put_later(written, name, record)
    parked[#parked + 1] = {name, record.token, item[2]}
  end
end
write_all('HSET', KEYS[3], written)
journal(KEYS[4], 'park', nil, ARGV[1], nil, parked)
return #parked
