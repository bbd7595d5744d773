-- take.lua: one decision over every window of every key of a check, or nothing. It can also only look.
--
-- The same arithmetic as `decide` in engine/src/counter.rs, number for number. The clock is the store's, so nodes
-- need not agree on the time; per key it never runs backwards, also after a failover to a slower clock.
--
-- KEYS     1..n        one hash per subject; in Redis Cluster all in one slot
-- ARGV     1           spend_within_us: for how long after this decision its tokens may be spent
--          2           all or known: whether subjects may be charged that this server has not seen
--          then for each key
--                      take or peek: whether it is charged when the check is allowed
--                      cost, in requests or tokens: as much of it is granted as fits
--                      at_least: less than this is not granted, and the check rejected
--                      its windows, as subject.lua says
--
-- Returns  a flat list of integers: the clock's time in us; 1 if allowed, 0 if rejected, or -1, and nothing more,
--          where a subject would have to be seen first; and then for each key the latest moment it has seen in us,
--          how much is granted, and for each of its windows what is left, us until more is left, us until at_least
--          fits.
--
-- A check that is rejected or only looks creates nothing and charges nothing. Every key is read before the first
-- write, so that a key of a wrong type refuses the check with nothing charged.
--
-- Cost     per key: one HMGET; when charged one HSET, one PEXPIREAT whenever it is to live longer, and for each log
--          one HSET; when rejected one HSET. Chunks of buckets are read, as entries are, only to forget them (once
--          for each bucket that has passed) and, when rejected, from the oldest up to the one that makes room; and
--          to set in order what is dated before them.
--
-- buckets.lua, windows.lua and subject.lua stand before it in the same script.

local spend_within, may_add = tonumber(ARGV[1]), ARGV[2] == 'all'

local function room(subject)
  local room = math.huge
  for _, window in ipairs(subject.windows) do
    room = math.min(room, window.algorithm.remaining(window, subject.seen))
  end
  return room
end

local function charge(subject)
  local dated, idle_at = subject.seen + spend_within, 0
  for _, window in ipairs(subject.windows) do
    idle_at = math.max(idle_at, window.algorithm.charge(window, dated, subject.granted))
  end
  -- Never sooner than it stands already: another window may need the hash for longer than those of this check.
  local expires_ms = math.max(subject.expires_ms, math.ceil(idle_at / 1000))
  subject.stays_longer, subject.expires_ms = expires_ms > subject.expires_ms, expires_ms
  save(subject)
end

-- How long something takes by the clock, which may be behind the subject's time; that stands still until it has caught up.
local function told(subject, us)
  return us == 0 and 0 or us + subject.seen - now
end

local subjects, allowed, is_unseen, at = {}, true, false, 3
for i, key in ipairs(KEYS) do
  local is_taken, cost, at_least = ARGV[at] == 'take', tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local subject
  subject, at = open_subject(key, at + 3)
  subject.is_taken, subject.at_least, subject.granted = is_taken, at_least, math.min(room(subject), cost)
  allowed = allowed and subject.granted >= at_least
  is_unseen = is_unseen or is_taken and not subject.known
  subjects[i] = subject
end
if is_unseen and not may_add then
  return {now, -1}
end

-- A rejection's waits read buckets, so they come before its writes, which forget some.
local answer = {now, allowed and 1 or 0}
for _, subject in ipairs(subjects) do
  local is_charged = allowed and subject.is_taken
  if is_charged then
    charge(subject)
  end
  answer[#answer + 1], answer[#answer + 2] = subject.seen, allowed and subject.granted or 0
  for _, window in ipairs(subject.windows) do
    local wait = allowed and 0 or window.algorithm.wait(window, subject.seen, subject.at_least)
    answer[#answer + 1] = window.algorithm.remaining(window, subject.seen)
    answer[#answer + 1] = told(subject, window.algorithm.reset(window, subject.seen))
    answer[#answer + 1] = told(subject, wait)
  end
  if not is_charged and subject.known then
    save(subject)
  end
  -- Last, since a moment that has passed while the script ran takes the hash away at once, with the buckets that a reset reads.
  if subject.stays_longer then
    redis.call('PEXPIREAT', subject.key, text(subject.expires_ms))
  end
end
return answer
