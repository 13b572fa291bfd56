-- forget: delete the specs of daemons; daemons that run are then stopped.
--
-- include: _daemons
--
-- KEYS[1] specs    hash
-- KEYS[2] book     hash
-- KEYS[3] journal  stream
-- KEYS[4] monitor  string
-- KEYS[5] traces   hash
-- KEYS[6] clock    string
-- KEYS[7] ended    zset
-- KEYS[8] counts   hash
-- KEYS[9] unhealthy  zset
-- ARGV[1] names    JSON [name, ...]
-- ARGV[2] cause
-- ARGV[3] epoch    of the monitor that prunes, or '' for a client
-- ARGV[4] actor    the person or process that asked
--
-- Returns how many specs existed, or -1 if the epoch is over.
if ARGV[3] ~= '' and not leads(KEYS[4], ARGV[3]) then return -1 end
local names, gone, ended = cjson.decode(ARGV[1]), {}, {}
local keys = {specs = KEYS[1], book = KEYS[2], traces = KEYS[5], counts = KEYS[8], unhealthy = KEYS[9]}
local daemons = open_daemons(keys)
read_specs(daemons, names)
read_entries(daemons, names)
for _, name in ipairs(names) do
  if drop_spec(daemons, name) then
    gone[#gone + 1] = {name, '', ''}
    ended[#ended + 1] = 'daemon:' .. name
  end
end
save(daemons)
if #ended > 0 then remember_ended(KEYS[7], ended, mint(KEYS[6], 1)) end
journal(KEYS[3], 'forget', nil, nil, ARGV[2], gone, ARGV[4])
return #gone
