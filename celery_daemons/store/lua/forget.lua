-- forget: want daemons no more; those that run are then stopped.
--
-- KEYS[1] specs    hash
-- KEYS[2] book     hash
-- KEYS[3] journal  stream
-- ARGV[1] names    JSON [name, ...]
-- ARGV[2] cause
--
-- Returns how many were known.
local gone = {}
for _, name in ipairs(cjson.decode(ARGV[1])) do
  if redis.call('HDEL', KEYS[1], name) == 1 then
    gone[#gone + 1] = {name, '', ''}
    local record = get(KEYS[2], name)
    if record and not record.node then redis.call('HDEL', KEYS[2], name) end
  end
end
journal(KEYS[3], 'forget', nil, nil, ARGV[2], gone)
return #gone
