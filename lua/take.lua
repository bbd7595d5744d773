-- take.lua: one decision over every window of every key of a check, or nothing. It can also only look.
--
-- The same arithmetic as `take` in engine/src/counter.rs, number for number. The clock is the store's, so nodes
-- need not agree on the time; per key it never runs backwards, also after a failover to a slower clock.
--
-- KEYS     1..n        one hash per subject; in Redis Cluster all in one slot
-- ARGV     1           take or peek: whether an allowed check is charged
--          2           spend_within_us: for how long after this decision its tokens may be spent
--          then for each key
--                      cost, in requests or tokens
--                      number of windows, and for each of them four values
--            sliding window   name (s...), limit, per_us, number of buckets
--            fixed window     name (f...), limit, per_us, how much before those of UTC its windows begin, us
--            token bucket     name (b...), burst, debt of one token, debt repaid per us
--
-- Returns  a flat list of integers: the clock's time in us, 1 if allowed or 0, and then for each window of each
--          key what is left, us until more is left, us until the cost fits.
--
-- A subject's hash
--   t                  the latest moment it has seen, us
--   e                  when it expires, ms
--   <name>:n           sliding, fixed: requests counted        <name>:d   token bucket: debt
--   <name>:o           its oldest bucket in use                <name>:f   its debt is repaid from here on, us
--   <name>:<index>     requests of one bucket
-- A name tells the unit its numbers are in, not the limit: changing a window's limit or a bucket's burst keeps
-- what is used; changing `per`, where fixed windows begin, or a token bucket's rate, starts afresh. Fields of a window that is
-- no longer asked for stay until the subject rests, so that two nodes with two policies do not erase each other.
--
-- The hash expires when every window is as if fresh: at a moment, not after a span, so that it never goes early.
-- A check that is rejected or only looks creates nothing and charges nothing. All reads of counters come before the first write, so
-- that a key of a wrong type refuses the check with nothing charged.
--
-- Cost     per key: one HMGET; when allowed one HSET, mostly one PEXPIREAT, and one HINCRBY for each sliding
--          or fixed window; when rejected one HSET. Buckets are read only to forget them (each once) and, when
--          rejected, from the oldest up to the one that makes room.

local SMALLEST_READ, LARGEST_READ = 4, 256
-- So many empty buckets in a row stand only where charges are dated several windows ahead.
local FAR = 1024
-- Lua hands over only some thousand arguments at once.
local MOST_ARGUMENTS = 1000

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local is_charged, spend_within = ARGV[1] == 'take', tonumber(ARGV[2])

local function text(number)
  return string.format('%.0f', number)
end

local function bucket_field(name, index)
  return name .. ':' .. text(index)
end

-- All buckets in use from `from` upwards, found by their names.
local function far_buckets(key, name, from)
  local prefix, indices = name .. ':', {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local index = string.sub(field, 1, #prefix) == prefix and tonumber(string.sub(field, #prefix + 1))
    if index and index >= from then
      table.insert(indices, index)
    end
  end
  table.sort(indices)
  return indices
end

-- Walks the buckets in use from `from` upwards: index, count. Reads ahead, and more the further it gets; the
-- names are looked through only beyond a gap of FAR.
local function buckets_in_use(key, name, from)
  local counts, size, at, empty, far = {}, 0, 0, 0, nil
  return function()
    while not far do
      if at == size then
        from, at = from + size, 0
        if empty >= FAR then
          far = far_buckets(key, name, from)
          break
        end
        size = math.min(math.max(size * 4, SMALLEST_READ), LARGEST_READ)
        local fields = {}
        for i = 1, size do
          fields[i] = bucket_field(name, from + i - 1)
        end
        counts = redis.call('HMGET', key, unpack(fields))
      end
      at = at + 1
      if counts[at] then
        empty = 0
        return from + at - 1, tonumber(counts[at])
      end
      empty = empty + 1
    end
    at = at + 1
    if far[at] then
      return far[at], tonumber(redis.call('HGET', key, bucket_field(name, far[at])))
    end
  end
end

local function forget(key, fields)
  for i = 1, #fields, MOST_ARGUMENTS do
    redis.call('HDEL', key, unpack(fields, i, math.min(i + MOST_ARGUMENTS - 1, #fields)))
  end
end

-- Sliding windows. A bucket counts as long as no more than `behind` lie between it and the current one.

local sliding = {fields = {'n', 'o'}}

function sliding.open(window, per, buckets, total, oldest)
  window.width, window.behind, window.shift = math.ceil(per / buckets), buckets, 0
  window.total, window.oldest = total, oldest
end

function sliding.index(window, moment)
  return math.floor((moment + window.shift) / window.width)
end

function sliding.settle(window, seen)
  local current = sliding.index(window, seen)
  if window.total == 0 or window.oldest + window.behind >= current then
    return
  end
  for index, count in buckets_in_use(window.key, window.name, window.oldest) do
    window.oldest = index
    if index + window.behind >= current then
      return
    end
    window.total = window.total - count
    table.insert(window.stale, bucket_field(window.name, index))
    if window.total == 0 then
      return
    end
  end
  window.total = 0
end

function sliding.leaves_at(window, index)
  return (index + window.behind + 1) * window.width - window.shift
end

function sliding.wait(window, seen, cost)
  local over, free_at = window.total + cost - window.capacity, seen
  if over <= 0 then
    return 0
  end
  for index, count in buckets_in_use(window.key, window.name, window.oldest) do
    over, free_at = over - count, sliding.leaves_at(window, index)
    if over <= 0 then
      break
    end
  end
  return free_at - seen
end

function sliding.charge(window, dated, cost)
  local index = sliding.index(window, dated)
  window.oldest = window.total == 0 and index or math.min(window.oldest, index)
  window.total = window.total + cost
  redis.call('HINCRBY', window.key, bucket_field(window.name, index), text(cost))
  return sliding.leaves_at(window, index)
end

function sliding.remaining(window)
  return math.max(window.capacity - window.total, 0)
end

function sliding.reset(window, seen)
  return window.total == 0 and 0 or sliding.leaves_at(window, window.oldest) - seen
end

function sliding.numbers(window)
  return window.total, window.oldest
end

-- Fixed windows: one bucket is one window, and none counts beyond its end.

local fixed = setmetatable({}, {__index = sliding})

function fixed.open(window, per, shift, total, oldest)
  window.width, window.behind, window.shift = per, 0, shift
  window.total, window.oldest = total, oldest
end

-- Token buckets.

local token_bucket = {fields = {'d', 'f'}}

function token_bucket.open(window, token, rate, debt, repaid_from)
  window.token, window.rate = token, rate
  window.debt, window.repaid_from = debt, repaid_from
end

function token_bucket.settle(window, seen)
  local elapsed = math.max(seen - window.repaid_from, 0)
  if elapsed > math.floor(window.debt / window.rate) then
    window.debt = 0
  else
    window.debt = window.debt - elapsed * window.rate
  end
  window.repaid_from = math.max(window.repaid_from, seen)
end

function token_bucket.until_debt_is(window, seen, most)
  local over = window.debt - most
  if over <= 0 then
    return 0
  end
  return math.max(window.repaid_from - seen, 0) + math.ceil(over / window.rate)
end

function token_bucket.wait(window, seen, cost)
  return token_bucket.until_debt_is(window, seen, math.max(window.capacity - cost, 0) * window.token)
end

function token_bucket.charge(window, dated, cost)
  window.repaid_from = math.max(window.repaid_from, dated - math.floor(window.debt / window.rate))
  window.debt = window.debt + cost * window.token
  return window.repaid_from + math.ceil(window.debt / window.rate)
end

function token_bucket.remaining(window)
  return math.floor(math.max(window.capacity * window.token - window.debt, 0) / window.token)
end

function token_bucket.reset(window, seen)
  return window.debt == 0 and 0 or token_bucket.wait(window, seen, token_bucket.remaining(window) + 1)
end

function token_bucket.numbers(window)
  return window.debt, window.repaid_from
end

local algorithms = {s = sliding, f = fixed, b = token_bucket}

-- Reads a subject as the arguments from `at` describe it; returns it and where the next one's begin.
local function open_subject(key, at)
  local subject = {key = key, cost = tonumber(ARGV[at]), windows = {}}
  local fields, next_at = {'t', 'e'}, at + 2
  for i = 1, tonumber(ARGV[at + 1]) do
    local name = ARGV[next_at]
    local window = {key = key, name = name, algorithm = algorithms[string.sub(name, 1, 1)], at = next_at}
    for _, field in ipairs(window.algorithm.fields) do
      table.insert(fields, name .. ':' .. field)
    end
    subject.windows[i], next_at = window, next_at + 4
  end
  local stored = redis.call('HMGET', key, unpack(fields))
  subject.known = stored[1] ~= false
  subject.seen, subject.expires_ms = math.max(now, tonumber(stored[1] or 0)), tonumber(stored[2] or 0)
  for i, window in ipairs(subject.windows) do
    local unit, per_unit = tonumber(ARGV[window.at + 2]), tonumber(ARGV[window.at + 3])
    window.capacity, window.stale = tonumber(ARGV[window.at + 1]), {}
    local first, second = tonumber(stored[2 * i + 1] or 0), tonumber(stored[2 * i + 2] or 0)
    window.algorithm.open(window, unit, per_unit, first, second)
    window.algorithm.settle(window, subject.seen)
  end
  return subject, next_at
end

local function save(subject)
  local values = {'t', text(subject.seen), 'e', text(subject.expires_ms)}
  for _, window in ipairs(subject.windows) do
    local numbers = {window.algorithm.numbers(window)}
    for i, field in ipairs(window.algorithm.fields) do
      table.insert(values, window.name .. ':' .. field)
      table.insert(values, text(numbers[i]))
    end
    forget(subject.key, window.stale)
  end
  redis.call('HSET', subject.key, unpack(values))
end

local function charge(subject)
  local dated, idle_at = subject.seen + spend_within, 0
  for _, window in ipairs(subject.windows) do
    idle_at = math.max(idle_at, window.algorithm.charge(window, dated, subject.cost))
  end
  -- Never sooner than it stands already: another window may need the hash for longer than those of this check.
  local expires_ms = math.max(subject.expires_ms, math.ceil(idle_at / 1000))
  local later = expires_ms > subject.expires_ms
  subject.expires_ms = expires_ms
  save(subject)
  if later then
    redis.call('PEXPIREAT', subject.key, text(expires_ms))
  end
end

local subjects, allowed, at = {}, true, 3
for i, key in ipairs(KEYS) do
  subjects[i], at = open_subject(key, at)
  for _, window in ipairs(subjects[i].windows) do
    local cost = subjects[i].cost
    allowed = allowed and cost <= window.capacity and window.algorithm.wait(window, subjects[i].seen, cost) == 0
  end
end

-- A rejection's waits read buckets, so they come before its writes, which forget some.
local answer = {now, allowed and 1 or 0}
for _, subject in ipairs(subjects) do
  if allowed and is_charged then
    charge(subject)
  end
  for _, window in ipairs(subject.windows) do
    local wait = allowed and 0 or window.algorithm.wait(window, subject.seen, subject.cost)
    table.insert(answer, window.algorithm.remaining(window))
    table.insert(answer, window.algorithm.reset(window, subject.seen))
    table.insert(answer, wait)
  end
  if not (allowed and is_charged) and subject.known then
    save(subject)
  end
end
return answer
