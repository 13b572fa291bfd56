-- confirm_server: record that every holder has had its time to speak to this server, so that leases on it can be trusted.
--
-- KEYS[1] monitor  string
-- KEYS[2] cluster  hash
-- ARGV[1] epoch
-- ARGV[2] server   the server's run id
--
-- Returns 1, or 0 when the epoch is over.
if not leads(KEYS[1], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[2], 'server', ARGV[2])
return 1
