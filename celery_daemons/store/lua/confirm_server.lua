-- confirm_server: record that leases on this server can be trusted, because every node has had one lease to reassert.
--
-- KEYS[1] monitor  string
-- KEYS[2] cluster  hash
-- ARGV[1] epoch
-- ARGV[2] server   the server's run id
--
-- Returns 1, or 0 if the epoch is over.
if not leads(KEYS[1], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[2], 'server', ARGV[2])
-- Leases that are not registered have ended too.
redis.call('HDEL', KEYS[2], 'lost_lease_ms')
return 1
