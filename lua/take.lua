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
--            sliding log      name (l...), limit, per_us, 0
--            sliding counter  name (c...), limit, per_us, 0
--            fixed window     name (f...), limit, per_us, how much before those of UTC its windows begin, us
--            token bucket     name (b...), burst, debt of one token, debt repaid per us
--
-- Returns  a flat list of integers: the clock's time in us, 1 if allowed or 0, and then for each window of each
--          key what is left, us until more is left, us until the cost fits.
--
-- A subject's hash
--   t                  the latest moment it has seen, us
--   e                  when it expires, ms
--   <name>:n           all but token bucket: requests counted  <name>:d   token bucket: debt
--   <name>:o           its oldest bucket in use                <name>:f   its debt is repaid from here on, us
--   <name>:<index>     requests of one bucket
--   <name>:o, :z       sliding log: number of its oldest entry and of the next to come
--   <name>:x, :y       when its oldest and its latest entry are dated, us
--   <name>:<number>    an entry: its date, us, and its requests
-- A name tells the unit its numbers are in, not the limit: changing a window's limit or a bucket's burst keeps
-- what is used; changing `per`, where fixed windows begin, or a token bucket's rate, starts afresh. Fields of a
-- window that is no longer asked for stay until the subject rests, so that two nodes with two policies do not
-- erase each other.
--
-- The hash expires when every window is as if fresh: at a moment, not after a span, so that it never goes early.
-- A check that is rejected or only looks creates nothing and charges nothing. Every key is read before the first
-- write, so that a key of a wrong type refuses the check with nothing charged.
--
-- Cost     per key: one HMGET; when allowed one HSET, mostly one PEXPIREAT, and for each window that is no
--          token bucket one HINCRBY, or HSET for a log; when rejected one HSET. A sliding counter reads one bucket.
--          Others are read, as entries are, only to forget them (each once) and, when rejected, from the oldest up
--          to the one that makes room; entries also to set in order what is dated before them.
--
-- windows.lua stands before it in the same script.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local is_charged, spend_within = ARGV[1] == 'take', tonumber(ARGV[2])

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
  local next_field = 3
  for _, window in ipairs(subject.windows) do
    local unit, per_unit = tonumber(ARGV[window.at + 2]), tonumber(ARGV[window.at + 3])
    window.capacity, window.stale = tonumber(ARGV[window.at + 1]), {}
    local numbers = {}
    for i = 1, #window.algorithm.fields do
      numbers[i], next_field = tonumber(stored[next_field] or 0), next_field + 1
    end
    window.algorithm.open(window, unit, per_unit, unpack(numbers))
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
    table.insert(answer, window.algorithm.remaining(window, subject.seen))
    table.insert(answer, window.algorithm.reset(window, subject.seen))
    table.insert(answer, wait)
  end
  if not (allowed and is_charged) and subject.known then
    save(subject)
  end
end
return answer
