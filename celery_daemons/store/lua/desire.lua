-- desire: change the spec of a daemon, so that it is stopped, started, restarted or moved.
--
-- include: _daemons
--
-- KEYS[1] specs    hash
-- KEYS[2] clock    string
-- KEYS[3] journal  stream
-- KEYS[4] book     hash
-- KEYS[5] counts      hash
-- KEYS[6] unhealthy  zset
-- ARGV[1] name
-- ARGV[2] action   'stop', 'start', 'restart' or 'move'
-- ARGV[3] target   for 'move': the node of the next start, or ''
-- ARGV[4] avoid    for 'move': a node on which the next start should not be, or ''
-- ARGV[5] actor    the person or process that asked
--
-- The spec is changed even while no monitor leads or no node is up; the change takes effect later.
--
-- Returns 1, or 0 if the daemon has no spec.
local daemons = open_daemons({specs = KEYS[1], book = KEYS[4], counts = KEYS[5], unhealthy = KEYS[6]})
read_specs(daemons, {ARGV[1]})
read_entries(daemons, {ARGV[1]})
local spec = daemons.specs[ARGV[1]]
if not spec then return 0 end
local version = text(mint(KEYS[2], 1))
edit(daemons, ARGV[1])
if ARGV[2] == 'stop' then
  spec.desired = 'stopped'
elseif ARGV[2] == 'start' then
  spec.desired = 'running'
else
  spec.version = version
  spec.target, spec.avoid = ARGV[3] ~= '' and ARGV[3] or nil, ARGV[4] ~= '' and ARGV[4] or nil
end
put_spec(daemons, ARGV[1], spec)
save(daemons)
journal(KEYS[3], ARGV[2], ARGV[3], nil, nil, {{ARGV[1], version, ''}}, ARGV[5])
return 1
