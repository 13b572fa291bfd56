-- overview: read the state of the cluster, in a time that does not depend on the number of daemons.
--
-- KEYS[1] cluster  hash
-- KEYS[2] leases   zset
-- KEYS[3] specs    hash
-- KEYS[4] book     hash
-- KEYS[5] lease_lengths  zset
-- KEYS[6] monitor  string
-- KEYS[7] counts   hash
--
-- Returns {now_ms, created_ms or '', number of specs, number of entries in the book, id of the confirmed server or
-- '', heard_ms or '', 'paused' while rebalancing is paused or '', longest lease in ms that is not registered or '', 1 if
-- a monitor leads else 0, {node, length of its lease in ms, ...}, history of the server, number of counted daemons that
-- have a spec, node, end of its lease, ...}.
-- pcall: the key may hold another type.
local counted, counts = 0, redis.pcall('HGETALL', KEYS[7])
for i = 1, #counts, 2 do
  if counts[i]:sub(1, 10) ~= 'forgotten,' then counted = counted + (tonumber(counts[i + 1]) or 0) end
end
local reply = {
  now_ms(), redis.call('HGET', KEYS[1], 'created_ms') or '', redis.call('HLEN', KEYS[3]), redis.call('HLEN', KEYS[4]),
  redis.call('HGET', KEYS[1], 'server') or '', redis.call('HGET', KEYS[1], 'heard_ms') or '',
  redis.call('HGET', KEYS[1], 'rebalance') or '', redis.call('HGET', KEYS[1], 'lost_lease_ms') or '',
  leader_of(KEYS[6]) and 1 or 0, redis.call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES'),
  history(), counted,
}
for _, value in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')) do reply[#reply + 1] = value end
return reply
