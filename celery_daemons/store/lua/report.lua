-- report: record the states of claimed daemons.
--
-- include: _daemons
--
-- KEYS[1] nodes    hash
-- KEYS[2] book     hash
-- KEYS[3] journal  stream
-- KEYS[4] traces   hash
-- KEYS[5] counts      hash
-- KEYS[6] unhealthy  zset
-- ARGV[1] node
-- ARGV[2] incarnation
-- ARGV[3] items    JSON [{name, token, status, pid, restarts, error, trace}, ...]
--
-- Returns 1 or 0 per item: 0 if the book has another token or the daemon was recalled; {'fenced'} if another incarnation
-- of the node is registered.
local node = get(KEYS[1], ARGV[1], NODE)
if not node or node.incarnation ~= ARGV[2] then return {'fenced'} end
local items = cjson.decode(ARGV[3])
local daemons = open_daemons({book = KEYS[2], counts = KEYS[5], unhealthy = KEYS[6]})
read_entries(daemons, column(items, 'name'))
local now, reply, done = now_ms(), {}, {}
for i = 1, #items do
  local item = items[i]
  local record = daemons.entries[item.name]
  reply[i] = 0
  if record and record.node == ARGV[1] and record.token == item.token and record.status ~= 'stopping' then
    edit(daemons, item.name)
    record.status, record.pid, record.restarts = item.status, item.pid, item.restarts
    if item.error then record.error = item.error end
    if item.status == 'running' then record.started_ms = now else record.started_ms = nil end
    put_entry(daemons, item.name, record)
    if item.trace then redis.call('HSET', KEYS[4], item.name, item.trace) end
    reply[i] = 1
    done[#done + 1] = {item.name, item.token, item.status}
  end
end
save(daemons)
journal(KEYS[3], 'report', ARGV[1], nil, nil, done)
return reply
