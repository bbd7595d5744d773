-- caller_clock.lua: what lua/take.lua would be if it believed its callers' clocks. For one test, which shows what comes of it.
--
-- KEYS     1           a sorted set: the requests of one subject by their times
-- ARGV     1           now_us: what the caller takes for the time
--          2           per_us: the length of the window
--          3           the most requests in it
--
-- Returns  1 if the request is admitted, 0 if not

local key, now, per, limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - per))
local used = redis.call('ZCARD', key)
if used >= limit then
  return 0
end
redis.call('ZADD', key, string.format('%.0f', now), string.format('%.0f %d', now, used))
return 1
