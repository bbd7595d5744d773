-- windows.lua: the arithmetic of each kind of window, the same as in engine/src/window, number for number.
--
-- It stands after buckets.lua in every script that counts, and has no KEYS, ARGV or Returns of its own. A window is a
-- table with its subject's key, its name, its capacity, what is to be written (writes) and forgotten (stale), its span
-- (per, us; but of a token bucket) and its algorithm, whose functions are
--   read      takes the text of its field, none if it is fresh
--   open      takes the two values of its arguments, the second as text
--   settle    brings it up to a moment
--   walk, leaves_at    what counts, the oldest first: where it stands and how much; and when what stands there leaves
--   wait      us until a cost fits
--   charge    counts a cost; returns the moment from which the charge says nothing any more, us
--   uncharge  takes a charge back, as far as it is still counted; its last argument is the moment at which tokens come
--             back that were granted, and false where nobody was granted them
--   remaining, reset   what is left, and us until more is
--   text      the text of its field, to be saved
-- Times are in us. None of these writes but charge and uncharge of a log.

-- Sliding windows. A bucket counts as long as no more than `behind` lie between it and the current one.

local sliding = {read = buckets.read, text = buckets.text, walk = buckets.walk}

function sliding.open(window, per, number_of_buckets)
  window.per, window.behind = per, tonumber(number_of_buckets)
  window.width = math.ceil(per / window.behind)
end

function sliding.index(window, moment)
  return math.floor(moment / window.width)
end

function sliding.settle(window, seen)
  buckets.forget(window, window.algorithm.index(window, seen) - window.behind)
end

function sliding.leaves_at(window, index)
  return (index + window.behind + 1) * window.width
end

function sliding.wait(window, seen, cost)
  local over, free_at = window.total + cost - window.capacity, seen
  if over <= 0 then
    return 0
  end
  for index, count in window.algorithm.walk(window) do
    over, free_at = over - count, window.algorithm.leaves_at(window, index)
    if over <= 0 then
      break
    end
  end
  return free_at - seen
end

function sliding.charge(window, dated, cost)
  local index = window.algorithm.index(window, dated)
  buckets.add(window, index, cost)
  return window.algorithm.leaves_at(window, index)
end

function sliding.uncharge(window, dated, cost)
  buckets.take_back(window, window.algorithm.index(window, dated), cost)
end

function sliding.remaining(window)
  return math.max(window.capacity - window.total, 0)
end

function sliding.reset(window, seen)
  return window.total == 0 and 0 or window.algorithm.leaves_at(window, window.oldest) - seen
end

-- Sliding logs. Entries are numbered in the order of their dates, without gaps.
--
--   <name>             nothing, or <requests> <oldest> <next> <first> <last>: the numbers of its oldest entry and of
--                      the next to come, and when its oldest and its latest are dated, us
--   <name>:<number>    an entry: its date, us, and its requests

local log = setmetatable({}, {__index = sliding})

function log.read(window, value)
  local total, oldest, next_number, first, last = string.match(value or '0 0 0 0 0', '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  window.total, window.oldest, window.next_number = tonumber(total), tonumber(oldest), tonumber(next_number)
  window.first, window.last = tonumber(first), tonumber(last)
end

function log.open(window, per)
  window.per = per
end

local function entry_of(value)
  local date, count = string.match(value, '^(%d+) (%d+)$')
  return tonumber(date), tonumber(count)
end

-- Walks the entries from the oldest upwards: number, date, count.
local function entries(window)
  local values = numbered_values(window, window.oldest, window.next_number)
  return function()
    local number, value = values()
    if number then
      return number, entry_of(value)
    end
  end
end

-- What counts, the oldest first: date, count.
function log.walk(window)
  local next_entry = entries(window)
  return function()
    local _, date, count = next_entry()
    return date, count
  end
end

function log.leaves_at(window, date)
  return date + window.per
end

function log.settle(window, seen)
  if window.total == 0 or window.first + window.per > seen then
    return
  end
  for number, date, count in entries(window) do
    window.oldest, window.first = number, date
    if date + window.per > seen then
      return
    end
    window.total = window.total - count
    table.insert(window.stale, numbered_field(window.name, number))
  end
  window.oldest = window.next_number
end

function log.charge(window, dated, cost)
  local number, values = window.next_number, {}
  -- Entries are dated later than this one only where their askers have longer to spend.
  while dated < window.last and number > window.oldest do
    local value = redis.call('HGET', window.key, numbered_field(window.name, number - 1))
    if entry_of(value) <= dated then
      break
    end
    table.insert(values, numbered_field(window.name, number))
    table.insert(values, value)
    number = number - 1
  end
  table.insert(values, numbered_field(window.name, number))
  table.insert(values, text(dated) .. ' ' .. text(cost))
  call_with('HSET', window.key, values)
  if number == window.oldest then
    window.first = dated
  end
  window.total, window.next_number = window.total + cost, window.next_number + 1
  window.last = math.max(window.last, dated)
  return log.leaves_at(window, dated)
end

-- The entries dated at `dated` lose what goes back, and those that lose all go: what follows them moves up.
function log.uncharge(window, dated, cost)
  local number, newest_first, back = window.next_number, {}, 0
  while number > window.oldest do
    local value = redis.call('HGET', window.key, numbered_field(window.name, number - 1))
    local date, count = entry_of(value)
    if date < dated then
      break
    end
    if date == dated then
      local taken = math.min(cost - back, count)
      back, value = back + taken, count > taken and text(date) .. ' ' .. text(count - taken)
    end
    if value then
      table.insert(newest_first, value)
    end
    number = number - 1
  end
  local values = {}
  for i = #newest_first, 1, -1 do
    table.insert(values, numbered_field(window.name, number))
    table.insert(values, newest_first[i])
    number = number + 1
  end
  call_with('HSET', window.key, values)
  for gone = number, window.next_number - 1 do
    table.insert(window.stale, numbered_field(window.name, gone))
  end
  window.total, window.next_number = window.total - back, number
  if window.total > 0 then
    window.first = entry_of(redis.call('HGET', window.key, numbered_field(window.name, window.oldest)))
  end
end

function log.reset(window, seen)
  return window.total == 0 and 0 or log.leaves_at(window, window.first) - seen
end

function log.text(window)
  local numbers = '%.0f %.0f %.0f %.0f %.0f'
  return string.format(numbers, window.total, window.oldest, window.next_number, window.first, window.last)
end

-- Sliding counters. Buckets are as wide as the window; the one before the current counts by its weight. The
-- products stay within 2^53, so their quotients are rounded the right way.

local counter = setmetatable({}, {__index = sliding})

function counter.open(window, per)
  window.per, window.width, window.behind = per, per, 1
end

function counter.settle(window, seen)
  sliding.settle(window, seen)
  window.current, window.previous = sliding.index(window, seen), 0
  if window.total > 0 and window.oldest < window.current then
    local _, count = buckets.walk(window)()
    window.previous = count
  end
end

function counter.remaining(window, seen)
  local per_ms = window.width / 1000
  local left_ms = per_ms - math.floor((seen - window.current * window.width) / 1000)
  local used = math.ceil(window.previous * left_ms / per_ms) + window.total - window.previous
  return math.max(window.capacity - used, 0)
end

function counter.wait(window, seen, cost)
  local most = math.max(window.capacity - cost, 0)
  local current, previous, full = window.current, window.previous, window.total - window.previous
  if full > most then
    for index, count in buckets.walk(window) do
      if index >= window.current then
        current, previous, full = index + 1, count, full - count
      end
      if full <= most then
        break
      end
    end
  end
  local room, per_ms = most - full, window.width / 1000
  local elapsed_ms = previous > room and per_ms - math.floor(room * per_ms / previous) or 0
  return math.max(current * window.width + elapsed_ms * 1000 - seen, 0)
end

function counter.reset(window, seen)
  return window.total == 0 and 0 or counter.wait(window, seen, counter.remaining(window, seen) + 1)
end

-- Fixed windows: one bucket is one window, and none counts beyond its end. Where clocks are put back, the index stays
-- what it was until the time that they show has not been shown before.

local fixed = setmetatable({}, {__index = sliding})

function fixed.open(window, per, shifts)
  window.per, window.width, window.behind = per, per, 0
  window.spans = {}
  for shift, till in string.gmatch(shifts, '(%d+) ?(%d*)') do
    table.insert(window.spans, {shift = tonumber(shift), till = tonumber(till) or math.huge})
  end
end

function fixed.index(window, moment)
  local index = 0
  for _, span in ipairs(window.spans) do
    local latest = math.min(moment, span.till - 1)
    index = math.max(index, math.floor((latest + span.shift) / window.width))
    if moment < span.till then
      break
    end
  end
  return index
end

function fixed.leaves_at(window, index)
  local from, shown = 0, (index + 1) * window.width
  for _, span in ipairs(window.spans) do
    local moment = math.max(from, shown - span.shift)
    if moment < span.till then
      return moment
    end
    from = span.till
  end
end

-- Token buckets.
--
--   <name>             <debt> <from>: the debt, and from when on it is repaid, us

local token_bucket = {}

-- The longest span in which a charge may be spent: why a return waits as long is in engine/src/window/token_bucket.rs.
local LONGEST_US = 120000000

function token_bucket.read(window, value)
  local debt, repaid_from = string.match(value or '0 0', '^(%d+) (%d+)$')
  window.debt, window.repaid_from = tonumber(debt), tonumber(repaid_from)
end

function token_bucket.open(window, token, rate)
  window.token, window.rate = token, tonumber(rate)
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

function token_bucket.uncharge(window, _, cost, granted_seen)
  local given = math.min(cost * window.token, window.debt)
  window.debt = window.debt - given
  if granted_seen and window.debt > 0 then
    local waited_for = window.repaid_from + math.ceil(given / window.rate)
    window.repaid_from = math.max(window.repaid_from, math.min(waited_for, granted_seen + LONGEST_US))
  end
end

function token_bucket.remaining(window)
  return math.floor(math.max(window.capacity * window.token - window.debt, 0) / window.token)
end

function token_bucket.reset(window, seen)
  return window.debt == 0 and 0 or token_bucket.wait(window, seen, token_bucket.remaining(window) + 1)
end

function token_bucket.text(window)
  return string.format('%.0f %.0f', window.debt, window.repaid_from)
end

local algorithms = {s = sliding, l = log, c = counter, f = fixed, b = token_bucket}
