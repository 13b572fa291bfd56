-- want: record that daemons should run.
--
-- KEYS[1] specs    hash    name -> spec
-- KEYS[2] clock    string
-- KEYS[3] journal  stream
-- KEYS[4] monitor  string
-- ARGV[1] items    JSON [[name, launcher, arguments], ...]
-- ARGV[2] mode     'spawn', 'replace' or 'scan'
-- ARGV[3] epoch    of the monitor for 'scan', else ''
--
-- A different spec under the name is a conflict for 'spawn', and also for 'scan' if the launcher differs. A stopped
-- daemon stays stopped in every mode.
--
-- Returns 'new', 'same', 'replaced' or 'conflict' per item; {-1} if the epoch is over.
if ARGV[2] == 'scan' and not leads(KEYS[4], ARGV[3]) then return {-1} end
local outcomes, changed, written = {}, {}, {}
local items, version = cjson.decode(ARGV[1]), nil
local specs = get_all(KEYS[1], column(items, 1), SPEC)
for i, item in ipairs(items) do
  local name, launcher, arguments = item[1], item[2], item[3]
  local spec = specs[name]
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
    specs[name] = {launcher = launcher, arguments = arguments, desired = desired, version = text(version)}
    put_later(written, name, specs[name])
    changed[#changed + 1] = {name, specs[name].version, outcome}
  end
  outcomes[i] = outcome
end
write_all('HSET', KEYS[1], written)
journal(KEYS[3], 'want', nil, nil, ARGV[2], changed)
return outcomes
