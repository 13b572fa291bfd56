-- campaign: take the monitor's lease if it is free, or renew the caller's own.
--
-- KEYS[1] monitor  string, PX  {node, incarnation, epoch}
-- KEYS[2] clock    string
-- KEYS[3] journal  stream
-- ARGV[1] node
-- ARGV[2] incarnation
-- ARGV[3] ttl_ms
-- ARGV[4] epoch    the caller's own, or '' to run for election
--
-- Returns the epoch held by the caller, or '' when another holds the lease or the caller's epoch is over.
local raw = redis.call('GET', KEYS[1])
if ARGV[4] ~= '' then
  if raw and cjson.decode(raw).epoch == ARGV[4] then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return ARGV[4]
  end
  return ''
end
if raw then return '' end
local epoch = text(mint(KEYS[2], 1))
redis.call('SET', KEYS[1], cjson.encode({node = ARGV[1], incarnation = ARGV[2], epoch = epoch}), 'PX', ARGV[3])
journal(KEYS[3], 'lead', ARGV[1], epoch, ARGV[2])
return epoch
