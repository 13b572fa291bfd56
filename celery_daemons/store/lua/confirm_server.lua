-- confirm_server: record that leases on this server can be trusted, because every node has had one lease to reassert.
--
-- KEYS[1] monitor  string
-- KEYS[2] cluster  hash
-- ARGV[1] epoch
-- ARGV[2] server   the id of the server: its run id, and its history as the monitor has observed it for one lease
--
-- Returns 1; 0 if the server has another history now, and was not confirmed; -1 if the epoch is over.
if not leads(KEYS[1], ARGV[1]) then return -1 end
if has_other_history(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[2], 'server', ARGV[2])
-- Leases that are not registered have ended too.
redis.call('HDEL', KEYS[2], 'lost_lease_ms')
return 1
