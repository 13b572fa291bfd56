-- recall: ask a node to stop and release daemons.
--
-- include: _daemons
--
-- KEYS[1] monitor     string
-- KEYS[2] book        hash
-- KEYS[3] generation  string  of the node
-- KEYS[4] journal     stream
-- KEYS[5] counts      hash
-- KEYS[6] unhealthy  zset
-- ARGV[1] epoch
-- ARGV[2] node
-- ARGV[3] items       JSON [[name, cause], ...]
--
-- Returns {generation, token or '', ...} with '' for a daemon that is not on the node or is already stopping; {-1} if
-- the epoch is over.
if not leads(KEYS[1], ARGV[1]) then return {-1} end
local items = cjson.decode(ARGV[3])
local daemons = open_daemons({book = KEYS[2], counts = KEYS[5], unhealthy = KEYS[6]})
read_entries(daemons, column(items, 1))
local reply, done = {0}, {}
for i = 1, #items do
  local item = items[i]
  local record = daemons.entries[item[1]]
  if record and record.node == ARGV[2] and record.status ~= 'stopping' then
    edit(daemons, item[1])
    record.status = 'stopping'
    put_entry(daemons, item[1], record)
    reply[i + 1] = record.token
    done[#done + 1] = {item[1], record.token, item[2]}
  else
    reply[i + 1] = ''
  end
end
save(daemons)
if #done > 0 then redis.call('INCR', KEYS[3]) end
reply[1] = tonumber(redis.call('GET', KEYS[3]) or '0')
journal(KEYS[4], 'recall', ARGV[2], ARGV[1], nil, done, 'monitor')
return reply
