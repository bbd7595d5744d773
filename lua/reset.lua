-- reset.lua: forgets subjects, as if they had never been asked for.
--
-- KEYS     1..n        one hash per subject; in Redis Cluster all in one slot
-- ARGV     none
--
-- Returns  how many of them were known
--
-- Their time is forgotten as well: the next decision begins at the clock's.

return redis.call('UNLINK', unpack(KEYS))
