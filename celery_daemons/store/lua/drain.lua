-- drain: stop a node from being assigned daemons, or allow this again.
--
-- KEYS[1] nodes    hash
-- KEYS[2] journal  stream
-- ARGV[1] node
-- ARGV[2] status   'draining' or 'up'
-- ARGV[3] incarnation  only if this incarnation is registered, or '' for any
-- ARGV[4] actor    the person or process that asked, or '' for the node itself
--
-- Returns 1 if the node now has that status, 0 if no such node is registered.
local record = get(KEYS[1], ARGV[1], NODE)
if not record or (ARGV[3] ~= '' and record.incarnation ~= ARGV[3]) then return 0 end
if record.status ~= ARGV[2] then
  record.status = ARGV[2]
  put(KEYS[1], ARGV[1], record)
  journal(KEYS[2], ARGV[2] == 'up' and 'uncordon' or 'drain', ARGV[1], nil, record.incarnation, nil, ARGV[4])
end
return 1
