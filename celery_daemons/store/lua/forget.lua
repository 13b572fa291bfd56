-- forget: delete the specs of daemons; daemons that run are then stopped.
--
-- KEYS[1] specs    hash
-- KEYS[2] book     hash
-- KEYS[3] journal  stream
-- KEYS[4] monitor  string
-- KEYS[5] traces   hash
-- KEYS[6] clock    string
-- KEYS[7] ended    zset
-- ARGV[1] names    JSON [name, ...]
-- ARGV[2] cause
-- ARGV[3] epoch    of the monitor that prunes, or '' for a client
--
-- Returns how many specs existed, or -1 if the epoch is over.
if ARGV[3] ~= '' and not leads(KEYS[4], ARGV[3]) then return -1 end
local gone, ended = {}, {}
for _, name in ipairs(cjson.decode(ARGV[1])) do
  if redis.call('HDEL', KEYS[1], name) == 1 then
    gone[#gone + 1] = {name, '', ''}
    ended[#ended + 1] = 'daemon:' .. name
    local record = get(KEYS[2], name, ENTRY)
    if record and not record.node then redis.call('HDEL', KEYS[2], name) end
    -- The traceback of a running daemon is deleted later, with its entry.
    if not (record and record.node) then redis.call('HDEL', KEYS[5], name) end
  end
end
if #ended > 0 then remember_ended(KEYS[7], ended, mint(KEYS[6], 1)) end
journal(KEYS[3], 'forget', nil, nil, ARGV[2], gone)
return #gone
