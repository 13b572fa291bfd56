-- serving: record that a node cannot start processes, or that it can again.
--
-- KEYS[1] nodes    hash
-- KEYS[2] journal  stream
-- ARGV[1] node
-- ARGV[2] incarnation
-- ARGV[3] problem  why the node takes no daemons, or '' if it does
--
-- Returns 1, or 0 if another incarnation is registered.
local record = get(KEYS[1], ARGV[1], NODE)
if not record or record.incarnation ~= ARGV[2] then return 0 end
if (record.problem or '') ~= ARGV[3] then
  record.problem = ARGV[3]
  put(KEYS[1], ARGV[1], record)
  journal(KEYS[2], ARGV[3] == '' and 'serves-again' or 'cannot-serve', ARGV[1], nil, ARGV[3])
end
return 1
