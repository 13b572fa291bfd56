-- blocked: record which event loops of a node are blocked.
--
-- KEYS[1] nodes  hash
-- ARGV[1] node
-- ARGV[2] incarnation
-- ARGV[3] loops  JSON [[pid, milliseconds since the loop is blocked, daemon or ''], ...]
--
-- Returns the text that is recorded, or '-' if another incarnation is registered.
local record = get(KEYS[1], ARGV[1], NODE)
if not record or record.incarnation ~= ARGV[2] then return '-' end
local now, loops = now_ms(), {}
for i, loop in ipairs(cjson.decode(ARGV[3])) do
  loops[i] = text(loop[1]) .. '|' .. text(now - loop[2]) .. '|' .. loop[3]
end
record.blocked = table.concat(loops, ',')
put(KEYS[1], ARGV[1], record)
return record.blocked
