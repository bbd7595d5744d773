-- reset.lua: forgets subjects, as if they had never been asked for.
--
-- KEYS     1..n        one hash per subject; in Redis Cluster all in one slot
-- ARGV     1           spent_within_us: how long after a decision its tokens may be spent at most, those of leases too
--
-- Returns  how many of them were known
--
-- Their time is forgotten as well: the next decision begins at the clock's. What was granted before may still be spent,
-- and must not come back to what is charged afterwards: so for as long as it might, nothing is given back.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local until_us = now + tonumber(ARGV[1])
local expires_ms = string.format('%.0f', math.ceil(until_us / 1000))

local known = 0
for _, key in ipairs(KEYS) do
  if redis.call('UNLINK', key) == 1 then
    known = known + 1
    local none = string.format('all %.0f', until_us)
    redis.call('HSET', key, 't', string.format('%.0f', now), 'e', expires_ms, 'r', none)
    redis.call('PEXPIREAT', key, expires_ms)
  end
end
return known
