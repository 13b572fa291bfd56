-- note: write an event to the journal, without changing anything else.
--
-- KEYS[1] journal  stream
-- ARGV[1] event
-- ARGV[2] node     or ''
-- ARGV[3] cause
-- ARGV[4] items    JSON [[name, token, cause], ...]
-- ARGV[5] actor    the person or process that asked, or '' for the node or the cluster itself
--
-- Returns 1.
redis.call('XADD', KEYS[1], 'MAXLEN', '~', JOURNAL_ENTRIES, '*', 'event', ARGV[1], 'node', ARGV[2], 'epoch', '',
  'cause', ARGV[3], 'items', ARGV[4], 'actor', ARGV[5])
return 1
