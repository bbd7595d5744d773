-- nodes.lua: how many nodes ask this store.
--
-- KEYS     1           a sorted set of the nodes' numbers, by when each was last heard of, us
-- ARGV     1           life_us: a node that was not heard of for so long does not count
--          2..n        the numbers of the nodes that were heard of
--
-- Returns  how many count
--
-- Shims tell what they have heard, each the nodes that ask it. A clock that was set back keeps nodes for longer.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local life = tonumber(ARGV[1])

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - life))
for at = 2, #ARGV do
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[at])
end
redis.call('PEXPIRE', KEYS[1], math.ceil(life / 1000))
return redis.call('ZCARD', KEYS[1])
