-- repair_counts: correct the counts of daemons, the index of daemons that need attention, and the marks of entries.
--
-- include: _daemons
--
-- KEYS[1] monitor    string
-- KEYS[2] specs      hash
-- KEYS[3] book       hash
-- KEYS[4] counts     hash
-- KEYS[5] unhealthy  zset
-- ARGV[1] epoch
-- ARGV[2] changes    JSON [[field, change], ...]
-- ARGV[3] names      JSON [name, ...]  whose entries may be marked or indexed wrongly
--
-- Every verb changes counts and records alike, so a difference between the two stays the same until it is corrected
-- here: the changes are right whatever has happened since the caller computed them. Names are checked again.
--
-- Returns 1, or 0 if the epoch is over.
if not leads(KEYS[1], ARGV[1]) then return 0 end
for _, change in ipairs(cjson.decode(ARGV[2])) do
  local count = redis.pcall('HINCRBY', KEYS[4], change[1], change[2])
  if kind_of(count) == 'table' then
    -- Not a number, or not a hash. It counted as 0.
    local gone = redis.pcall('HDEL', KEYS[4], change[1])
    if kind_of(gone) == 'table' then redis.call('DEL', KEYS[4]) end
    count = redis.call('HINCRBY', KEYS[4], change[1], change[2])
  end
  if count == 0 then redis.call('HDEL', KEYS[4], change[1]) end
end
local names = cjson.decode(ARGV[3])
local daemons = open_daemons({specs = KEYS[2], book = KEYS[3], counts = KEYS[4], unhealthy = KEYS[5]})
read_specs(daemons, names)
read_entries(daemons, names)
for _, name in ipairs(names) do
  local entry = daemons.entries[name]
  local score = tonumber(redis.call('ZSCORE', KEYS[5], name) or nil)
  if entry then
    edit(daemons, name)
    daemons.score = score
    put_entry(daemons, name, entry)
  elseif score then
    daemons.index[name] = false
  end
end
save(daemons)
return 1
