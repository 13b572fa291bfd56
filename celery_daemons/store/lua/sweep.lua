-- sweep: free the daemons of a node whose lease has ended, a batch per call, and remove the node.
--
-- include: _daemons
--
-- KEYS[1] monitor     string
-- KEYS[2] nodes       hash
-- KEYS[3] leases      zset
-- KEYS[4] specs       hash
-- KEYS[5] book        hash
-- KEYS[6] held        set     of the node
-- KEYS[7] generation  string  of the node
-- KEYS[8] journal     stream
-- KEYS[9] gone        hash    queues of departed nodes
-- KEYS[10] traces     hash
-- KEYS[11] lease_lengths  zset
-- KEYS[12] counts      hash
-- KEYS[13] unhealthy  zset
-- ARGV[1] epoch
-- ARGV[2] node
-- ARGV[3] limit       the most daemons to free in this call
-- ARGV[4] ended       the end of the lease that has ended by the caller's clock; 0 for a node without a lease
--
-- The monitor measures leases by its own clock, because Redis's clock may be set. It says which lease it has measured: if
-- the node has another one now, nothing is freed.
--
-- Returns {'swept', number of daemons left for the next call, name, ...}; {'alive'} if the node has another lease;
-- {'epoch'} if the epoch is over.
if not leads(KEYS[1], ARGV[1]) then return {'epoch'} end
local lease = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or '0')
if lease > 0 and lease ~= tonumber(ARGV[4]) then return {'alive'} end
local node = get(KEYS[2], ARGV[2], NODE)
-- HDEL first, because it needs no memory: on a server that is out of memory, the later writes are then allowed too.
if redis.call('HDEL', KEYS[2], ARGV[2]) == 1 then journal(KEYS[8], 'lost', ARGV[2], ARGV[1], 'its lease ended', nil, 'monitor') end
remember(KEYS[9], ARGV[2], node)
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[11], ARGV[2])
redis.call('DEL', KEYS[7])
local reply, done = {'swept', 0}, {}
local names = redis.call('SRANDMEMBER', KEYS[6], ARGV[3])
local keys = {specs = KEYS[4], book = KEYS[5], traces = KEYS[10], counts = KEYS[12], unhealthy = KEYS[13]}
local daemons = open_daemons(keys)
read_specs(daemons, names)
read_entries(daemons, names)
for _, name in ipairs(names) do
  local record = daemons.entries[name]
  if record and record.node == ARGV[2] then
    unplace(daemons, name, record, 'pending')
    done[#done + 1] = {name, record.token, ''}
    reply[#reply + 1] = name
  end
end
save(daemons)
-- Last: if a write above fails, the names are still in the set for the next sweep.
write_all('SREM', KEYS[6], names)
reply[2] = redis.call('SCARD', KEYS[6])
journal(KEYS[8], 'sweep', ARGV[2], ARGV[1], nil, done, 'monitor')
return reply
