-- scanned: record the result of a run of a launcher's recovery scanner.
--
-- KEYS[1] monitor  string
-- KEYS[2] scans    hash    launcher -> {at_ms, took_ms, listed, error}
-- KEYS[3] journal  stream
-- ARGV[1] epoch
-- ARGV[2] launcher
-- ARGV[3] listed   how many specs the scanner yielded
-- ARGV[4] took_ms
-- ARGV[5] error    or ''
--
-- Returns 1, or 0 if the epoch is over.
if not leads(KEYS[1], ARGV[1]) then return 0 end
local scan = {at_ms = now_ms(), listed = tonumber(ARGV[3]), took_ms = tonumber(ARGV[4])}
if ARGV[5] ~= '' then scan.error = ARGV[5] end
put(KEYS[2], ARGV[2], scan)
if scan.error then
  journal(KEYS[3], 'scan-failed', nil, ARGV[1], scan.error, {{ARGV[2], '', scan.error}}, 'scanner')
end
return 1
