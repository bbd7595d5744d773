-- give_back.lua: takes back what one run of take.lua charged, when another part of the same check was rejected.
--
-- Only Redis Cluster needs it: keys in several slots cannot be one script. The same arithmetic as `uncharge` in
-- engine/src/counter.rs, number for number. Run it once, and only for a charge that is known to have been made.
--
-- KEYS     1..n        the same as for take.lua
-- ARGV     1           taken_at_us: the clock's time that take.lua returned
--          2           spend_within_us: the same as for take.lua
--          then for each key the same as for take.lua
--
-- Returns  1
--
-- The tokens go back as far as they are still counted, to the bucket that they were charged to. When the subject's
-- time was ahead of the clock, that bucket lies later than the one found here: what is left then counts for
-- longer, and never too little. Time and expiry stay as they are. A subject that has expired is not created again,
-- and windows of kinds that are not listed here keep their charge.
--
-- Cost     per window one HMGET and, when there is something to give back, one HSET, perhaps one HDEL, and one HKEYS
--          when that emptied the oldest bucket.

local dated = tonumber(ARGV[1]) + tonumber(ARGV[2])

local function text(number)
  return string.format('%.0f', number)
end

-- The oldest bucket in use after `index`, found by its name.
local function next_bucket(key, name, index)
  local prefix, oldest = name .. ':', nil
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local found = string.sub(field, 1, #prefix) == prefix and tonumber(string.sub(field, #prefix + 1))
    if found and found > index and not (oldest and oldest < found) then
      oldest = found
    end
  end
  return oldest or index
end

local function sliding(key, name, cost, per, buckets)
  local index = math.floor(dated / math.ceil(per / buckets))
  local bucket = name .. ':' .. text(index)
  local stored = redis.call('HMGET', key, name .. ':n', name .. ':o', bucket)
  local total, oldest, count = tonumber(stored[1] or 0), tonumber(stored[2] or 0), tonumber(stored[3] or 0)
  local back = math.min(cost, count)
  if back == 0 then
    return
  end
  redis.call('HSET', key, name .. ':n', text(total - back), bucket, text(count - back))
  if back == count then
    redis.call('HDEL', key, bucket)
    if oldest == index then
      redis.call('HSET', key, name .. ':o', text(next_bucket(key, name, index)))
    end
  end
end

local function token_bucket(key, name, cost, token)
  local debt = redis.call('HGET', key, name .. ':d')
  if debt then
    redis.call('HSET', key, name .. ':d', text(math.max(tonumber(debt) - cost * token, 0)))
  end
end

local algorithms = {s = sliding, b = token_bucket}

local at = 3
for _, key in ipairs(KEYS) do
  local cost, windows = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, windows do
    local give_back = algorithms[string.sub(ARGV[at], 1, 1)]
    if give_back then
      give_back(key, ARGV[at], cost, tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]))
    end
    at = at + 4
  end
end
return 1
