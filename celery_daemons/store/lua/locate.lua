-- locate: where daemons are, as far as running leases vouch for it.
--
-- KEYS[1] book    hash
-- KEYS[2] nodes   hash
-- KEYS[3] leases  zset
-- ARGV    names   at most 1,000
--
-- Returns {record or false per name, ..., node, record, ms left of its lease, node, ...}: the nodes are those that the
-- records name and whose lease runs.
if #ARGV == 0 then return {} end
local reply, asked, extra = redis.call('HMGET', KEYS[1], unpack(ARGV)), {}, {}
local now = now_ms()
for i = 1, #ARGV do
  local record = read(reply[i], ENTRY)
  local node = record and record.node
  if node and not asked[node] then
    asked[node] = true
    local lease = tonumber(redis.call('ZSCORE', KEYS[3], node) or '0')
    if lease > now then
      extra[#extra + 1] = node
      extra[#extra + 1] = redis.call('HGET', KEYS[2], node)
      extra[#extra + 1] = lease - now
    end
  end
end
for _, value in ipairs(extra) do reply[#reply + 1] = value end
return reply
