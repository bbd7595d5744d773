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
--                      cost, in requests or tokens: as much of it is granted as fits; 0 where only a lease is wanted
--                      at_least: where less than this is left the check is rejected
--                      lease: the tokens to be charged in advance as far as they fit, or 0; unless it is 0 then also
--                      its life in ms, drift in millionths, and how many nodes share
--                      its windows, as subject.lua says
--
-- Returns  a flat list of integers: the clock's time in us; 1 if allowed, 0 if rejected, or -1, and nothing more,
--          where a subject would have to be seen first; and then for each key the latest moment it has seen in us,
--          how much is granted, the tokens of its lease and their life in ms, 0 and 0 where there is none, and for each
--          of its windows what is left, us until more is left, us until at_least fits.
--
-- A lease is charged beside the cost, if that is charged, and dated at the end of its life.
--
-- A check that is rejected or only looks creates nothing and charges nothing. Every key is read before the first
-- write, so that a key of a wrong type refuses the check with nothing charged.
--
-- Cost     per key: one HMGET; when charged one HSET, one PEXPIREAT whenever it is to live longer, and for each log
--          one HSET, or two with a lease; when rejected one HSET. Chunks of buckets are read, as entries are, only to forget them (once
--          for each bucket that has passed) and, when rejected, from the oldest up to the one that makes room; and
--          to set in order what is dated before them.
--
-- buckets.lua, windows.lua, subject.lua and lease.lua stand before it in the same script.

local spend_within, may_add = tonumber(ARGV[1]), ARGV[2] == 'all'

local function room(subject)
  local room = math.huge
  for _, window in ipairs(subject.windows) do
    room = math.min(room, window.algorithm.remaining(window, subject.seen))
  end
  return room
end

-- Counts a cost in every window; returns the moment from which it says nothing any more, us.
local function count(subject, cost, lasts)
  local dated, idle_at = subject.seen + lasts, 0
  for _, window in ipairs(cost > 0 and subject.windows or {}) do
    idle_at = math.max(idle_at, window.algorithm.charge(window, dated, cost))
  end
  return idle_at
end

-- Whether anything was charged.
local function charge(subject)
  local idle_at = count(subject, subject.granted, spend_within)
  if subject.lease then
    subject.leased, subject.life_ms = fit_lease(subject, subject.lease)
    idle_at = math.max(idle_at, count(subject, subject.leased, subject.life_ms * 1000))
  end
  if idle_at == 0 then
    return false
  end
  -- Never sooner than it stands already: another window may need the hash for longer than those of this check.
  local expires_ms = math.max(subject.expires_ms, math.ceil(idle_at / 1000))
  subject.stays_longer, subject.expires_ms = expires_ms > subject.expires_ms, expires_ms
  save(subject)
  return true
end

-- The lease that ARGV[at] asks for, nil for none, and where that ends.
local function lease_ask(at)
  local tokens = tonumber(ARGV[at])
  if tokens == 0 then
    return nil, at + 1
  end
  local life_ms, drift, nodes = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  return {tokens = tokens, life_ms = life_ms, drift = drift, nodes = nodes}, at + 4
end

-- How long something takes by the clock, which may be behind the subject's time; that stands still until it has caught up.
-- A moment and a wait of centuries together would be beyond 2^53, so the two moments are subtracted first.
local function told(subject, us)
  return us == 0 and 0 or us + (subject.seen - now)
end

local subjects, allowed, is_unseen, at = {}, true, false, 3
for i, key in ipairs(KEYS) do
  local is_taken, cost, at_least = ARGV[at] == 'take', tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local subject, lease
  lease, at = lease_ask(at + 3)
  subject, at = open_subject(key, at)
  local room = room(subject)
  subject.is_taken, subject.at_least, subject.granted, subject.lease = is_taken, at_least, math.min(room, cost), lease
  subject.leased, subject.life_ms = 0, 0
  allowed = allowed and room >= at_least
  is_unseen = is_unseen or is_taken and not subject.known
  subjects[i] = subject
end
if is_unseen and not may_add then
  return {now, -1}
end

-- A rejection's waits read buckets, so they come before its writes, which forget some.
local answer = {now, allowed and 1 or 0}
for _, subject in ipairs(subjects) do
  local is_charged = allowed and subject.is_taken and charge(subject)
  answer[#answer + 1], answer[#answer + 2] = subject.seen, allowed and subject.granted or 0
  answer[#answer + 1], answer[#answer + 2] = subject.leased, subject.life_ms
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
