-- park: record that daemons have no node to run on, and why.
--
-- KEYS[1] monitor  string
-- KEYS[2] specs    hash
-- KEYS[3] book     hash
-- KEYS[4] journal  stream
-- ARGV[1] epoch
-- ARGV[2] items    JSON [[name, why], ...]
--
-- Returns how many records changed, or -1 when the epoch is over.
if not leads(KEYS[1], ARGV[1]) then return -1 end
local parked = {}
for _, item in ipairs(cjson.decode(ARGV[2])) do
  local spec = get(KEYS[2], item[1], SPEC)
  local record, corrupt = get(KEYS[3], item[1], ENTRY)
  record = record or {token = '0'}
  local told = record.status == 'unplaceable' and record.error == item[2]
  if spec and spec.desired == 'running' and not corrupt and not record.node and not told then
    record.launcher, record.status, record.error = spec.launcher, 'unplaceable', item[2]
    put(KEYS[3], item[1], record)
    parked[#parked + 1] = {item[1], record.token, item[2]}
  end
end
journal(KEYS[4], 'park', nil, ARGV[1], nil, parked)
return #parked
