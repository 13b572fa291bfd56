-- campaign: take the monitor's lease if it is free, or renew the caller's own.
--
-- KEYS[1] monitor  string, PX  {node, incarnation, epoch, ttl_ms}
-- KEYS[2] clock    string
-- KEYS[3] journal  stream
-- KEYS[4] ended    zset     incarnations that have left
-- ARGV[1] node
-- ARGV[2] incarnation
-- ARGV[3] ttl_ms
-- ARGV[4] epoch    the epoch to renew, or '' to run for election
--
-- Returns the epoch that the caller holds, or '' if another node holds the lease, the caller's epoch is over, or the
-- caller has left and this request is late: no monitor would lead until that lease ends.
if ARGV[4] ~= '' then
  if not leads(KEYS[1], ARGV[4]) then return '' end
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return ARGV[4]
end
-- A leader whose lease was replaced by a corrupt value can no longer renew its epoch either.
if leader_of(KEYS[1]) or has_left(KEYS[4], ARGV[2]) then return '' end
local epoch = text(mint(KEYS[2], 1))
-- SET also replaces a key of another type.
redis.call('SET', KEYS[1], cjson.encode({node = ARGV[1], incarnation = ARGV[2], epoch = epoch, ttl_ms = ARGV[3]}),
  'PX', ARGV[3])
journal(KEYS[3], 'lead', ARGV[1], epoch, ARGV[2])
return epoch
