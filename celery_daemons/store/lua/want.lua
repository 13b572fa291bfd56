-- want: record that daemons should run.
--
-- include: _daemons
--
-- KEYS[1] specs    hash    name -> spec
-- KEYS[2] clock    string
-- KEYS[3] journal  stream
-- KEYS[4] monitor  string
-- KEYS[5] book     hash
-- KEYS[6] counts      hash
-- KEYS[7] unhealthy  zset
-- ARGV[1] items    JSON [[name, launcher, arguments], ...]
-- ARGV[2] mode     'spawn', 'replace' or 'scan'
-- ARGV[3] epoch    of the monitor for 'scan', else ''
-- ARGV[4] actor    the person or process that asked
--
-- A different spec under the name is a conflict for 'spawn', and also for 'scan' if the launcher differs. A stopped
-- daemon stays stopped in every mode.
--
-- Returns 'new', 'same', 'replaced' or 'conflict' per item; {-1} if the epoch is over.
if ARGV[2] == 'scan' and not leads(KEYS[4], ARGV[3]) then return {-1} end
local outcomes, changed, wanted, written = {}, {}, {}, {}
local items, version = cjson.decode(ARGV[1]), nil
local daemons = open_daemons({specs = KEYS[1], book = KEYS[5], counts = KEYS[6], unhealthy = KEYS[7]})
read_specs(daemons, column(items, 1))
for i = 1, #items do
  local item = items[i]
  local name, launcher, arguments = item[1], item[2], item[3]
  local spec = wanted[name] or daemons.specs[name]
  local outcome = 'new'
  if spec then
    if spec.launcher == launcher and spec.arguments == arguments then
      outcome = 'same'
    elseif ARGV[2] == 'replace' or (ARGV[2] == 'scan' and spec.launcher == launcher) then
      outcome = 'replaced'
    else
      outcome = 'conflict'
    end
  end
  if outcome == 'new' or outcome == 'replaced' then
    version = version and version + 1 or mint(KEYS[2], #items)
    local desired = spec and spec.desired or 'running'
    spec = {launcher = launcher, arguments = arguments, desired = desired, version = text(version)}
    local count = #written + 1
    wanted[name], written[count], changed[count] = spec, name, {name, spec.version, outcome}
  end
  outcomes[i] = outcome
end
-- Only of daemons whose spec changes: most scans list what is recorded already.
read_entries(daemons, written)
for i = 1, #written do
  edit(daemons, written[i])
  put_spec(daemons, written[i], wanted[written[i]])
end
save(daemons)
journal(KEYS[3], 'want', nil, nil, ARGV[2], changed, ARGV[4])
return outcomes
