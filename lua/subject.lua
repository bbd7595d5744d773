-- subject.lua: a subject's hash, read into windows and written back.
--
-- It stands between windows.lua and each script that counts, and has no KEYS, ARGV or Returns of its own. Those scripts describe
-- a subject's windows in ARGV as follows.
--
--          number of windows, and for each of them four values
--            sliding window   name (s...), limit, per_us, number of buckets
--            sliding log      name (l...), limit, per_us, 0
--            sliding counter  name (c...), limit, per_us, 0
--            fixed window     name (f...), limit, per_us, shifts
--            token bucket     name (b...), burst, debt of one token, debt repaid per us
--
-- The shifts of a fixed window are what is added to a moment, in us, before it is divided by per_us. In a zone whose
-- clocks change they are several, "shift from shift from shift": from the moment `from` on, in us, the shift after it
-- holds and not the one before. They reach years back and ahead, so what they say of now is for this clock to pick.
--
-- A subject's hash
--   t                  the latest moment it has seen, us
--   e                  when it expires, ms
--   r                  returns that may come again: of each one its id and when its tokens could be spent last, us;
--                      `all` in the place of an id: nothing at all goes back until then. Reports of what was spent
--                      without asking stand among them, each until what it charged ceases to count
--   <name>, <name>:<number>   what a window counts, as buckets.lua and windows.lua say
-- A name tells the unit its numbers are in, not the limit: changing a window's limit or a bucket's burst keeps
-- what is used; changing `per`, the time zone of fixed windows, or a token bucket's rate, starts afresh. Fields of a
-- window that is no longer asked for stay until the subject rests, so that two nodes with two policies do not
-- erase each other.
--
-- The hash expires when every window is as if fresh: at a moment, not after a span, so that it never goes early.
-- Most subjects are quiet, and there may be millions of them: that is why few fields with short names hold everything.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- Reads the subject whose windows are described from ARGV[at] on, brought up to now; returns it and where the
-- description ends.
local function open_subject(key, at)
  local subject = {key = key, windows = {}}
  local fields, next_at = {'t', 'e'}, at + 1
  for i = 1, tonumber(ARGV[at]) do
    local name = ARGV[next_at]
    local algorithm = algorithms[string.sub(name, 1, 1)]
    subject.windows[i] = {key = key, name = name, algorithm = algorithm, at = next_at, writes = {}, stale = {}}
    fields[i + 2], next_at = name, next_at + 4
  end
  local stored = redis.call('HMGET', key, unpack(fields))
  subject.known = stored[1] ~= false
  subject.seen, subject.expires_ms = math.max(now, tonumber(stored[1] or 0)), tonumber(stored[2] or 0)
  for i, window in ipairs(subject.windows) do
    window.capacity = tonumber(ARGV[window.at + 1])
    window.algorithm.read(window, stored[i + 2])
    window.algorithm.open(window, tonumber(ARGV[window.at + 2]), ARGV[window.at + 3])
    window.algorithm.settle(window, subject.seen)
  end
  return subject, next_at
end

local function save(subject)
  local values, size = {'t', text(subject.seen), 'e', text(subject.expires_ms)}, 4
  for _, window in ipairs(subject.windows) do
    values[size + 1], values[size + 2] = window.name, window.algorithm.text(window)
    size = size + 2
    for i = 1, #window.writes do
      values[size + i] = window.writes[i]
    end
    size = size + #window.writes
    call_with('HDEL', subject.key, window.stale)
  end
  call_with('HSET', subject.key, values)
end
