-- windows.lua: the arithmetic of each kind of window, the same as in engine/src/window, number for number.
--
-- It stands at the head of every script that counts, and has no KEYS, ARGV or Returns of its own. A window is a table with its
-- subject's key, its name, its capacity, the fields to forget (stale) and its algorithm, whose functions are
--   open      takes the two values of its arguments, the second as text, and the numbers of its fields
--   settle    brings it up to a moment
--   wait      us until a cost fits
--   charge    counts a cost; returns the moment from which the charge says nothing any more, us
--   uncharge  takes a charge back, as far as it is still counted
--   remaining, reset   what is left, and us until more is
--   numbers   the numbers of its fields, to be saved
-- Times are in us. None of these writes but charge and uncharge.

local SMALLEST_READ, LARGEST_READ = 4, 256
-- So many empty buckets in a row stand only where charges are dated several windows ahead.
local FAR = 1024
-- Lua hands over only some thousand arguments at once.
local MOST_ARGUMENTS = 1000

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
  window.behind = tonumber(buckets)
  window.width = math.ceil(per / window.behind)
  window.total, window.oldest = total, oldest
end

function sliding.index(window, moment)
  return math.floor(moment / window.width)
end

function sliding.settle(window, seen)
  local current = window.algorithm.index(window, seen)
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
  return (index + window.behind + 1) * window.width
end

function sliding.wait(window, seen, cost)
  local over, free_at = window.total + cost - window.capacity, seen
  if over <= 0 then
    return 0
  end
  for index, count in buckets_in_use(window.key, window.name, window.oldest) do
    over, free_at = over - count, window.algorithm.leaves_at(window, index)
    if over <= 0 then
      break
    end
  end
  return free_at - seen
end

function sliding.charge(window, dated, cost)
  local index = window.algorithm.index(window, dated)
  window.oldest = window.total == 0 and index or math.min(window.oldest, index)
  window.total = window.total + cost
  redis.call('HINCRBY', window.key, bucket_field(window.name, index), text(cost))
  return window.algorithm.leaves_at(window, index)
end

function sliding.uncharge(window, dated, cost)
  local index = window.algorithm.index(window, dated)
  if window.total == 0 or index < window.oldest then
    return
  end
  local field = bucket_field(window.name, index)
  local count = tonumber(redis.call('HGET', window.key, field) or 0)
  if count == 0 then
    return
  end
  local back = math.min(cost, count)
  window.total = window.total - back
  if back < count then
    redis.call('HINCRBY', window.key, field, text(-back))
    return
  end
  redis.call('HDEL', window.key, field)
  if index == window.oldest and window.total > 0 then
    window.oldest = buckets_in_use(window.key, window.name, index + 1)()
  end
end

function sliding.remaining(window)
  return math.max(window.capacity - window.total, 0)
end

function sliding.reset(window, seen)
  return window.total == 0 and 0 or window.algorithm.leaves_at(window, window.oldest) - seen
end

function sliding.numbers(window)
  return window.total, window.oldest
end

-- Sliding logs. Entries are numbered in the order of their dates, without gaps.

local log = setmetatable({fields = {'n', 'o', 'z', 'x', 'y'}}, {__index = sliding})

function log.open(window, per, _, total, oldest, next_number, first, last)
  window.per, window.total = per, total
  window.oldest, window.next_number, window.first, window.last = oldest, next_number, first, last
end

local function entry_of(value)
  local date, count = string.match(value, '^(%d+) (%d+)$')
  return tonumber(date), tonumber(count)
end

-- Walks the entries from the oldest upwards: number, date, count.
local function entries(window)
  local values, from, size, at = {}, window.oldest, 0, 0
  return function()
    if at == size then
      from, at = from + size, 0
      size = math.min(math.max(size * 4, SMALLEST_READ), LARGEST_READ, window.next_number - from)
      if size == 0 then
        return nil
      end
      local fields = {}
      for i = 1, size do
        fields[i] = bucket_field(window.name, from + i - 1)
      end
      values = redis.call('HMGET', window.key, unpack(fields))
    end
    at = at + 1
    return from + at - 1, entry_of(values[at])
  end
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
    table.insert(window.stale, bucket_field(window.name, number))
  end
  window.oldest = window.next_number
end

function log.wait(window, seen, cost)
  local over, free_at = window.total + cost - window.capacity, seen
  if over <= 0 then
    return 0
  end
  for _, date, count in entries(window) do
    over, free_at = over - count, date + window.per
    if over <= 0 then
      break
    end
  end
  return free_at - seen
end

function log.charge(window, dated, cost)
  local number, values = window.next_number, {}
  -- Entries are dated later than this one only where their askers have longer to spend.
  while dated < window.last and number > window.oldest do
    local value = redis.call('HGET', window.key, bucket_field(window.name, number - 1))
    if entry_of(value) <= dated then
      break
    end
    table.insert(values, bucket_field(window.name, number))
    table.insert(values, value)
    number = number - 1
  end
  table.insert(values, bucket_field(window.name, number))
  table.insert(values, text(dated) .. ' ' .. text(cost))
  for i = 1, #values, MOST_ARGUMENTS do
    redis.call('HSET', window.key, unpack(values, i, math.min(i + MOST_ARGUMENTS - 1, #values)))
  end
  if number == window.oldest then
    window.first = dated
  end
  window.total, window.next_number = window.total + cost, window.next_number + 1
  window.last = math.max(window.last, dated)
  return dated + window.per
end

-- The entries dated at `dated` lose what goes back, and those that lose all go: what follows them moves up.
function log.uncharge(window, dated, cost)
  local number, newest_first, back = window.next_number, {}, 0
  while number > window.oldest do
    local value = redis.call('HGET', window.key, bucket_field(window.name, number - 1))
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
    table.insert(values, bucket_field(window.name, number))
    table.insert(values, newest_first[i])
    number = number + 1
  end
  for i = 1, #values, MOST_ARGUMENTS do
    redis.call('HSET', window.key, unpack(values, i, math.min(i + MOST_ARGUMENTS - 1, #values)))
  end
  for gone = number, window.next_number - 1 do
    table.insert(window.stale, bucket_field(window.name, gone))
  end
  window.total, window.next_number = window.total - back, number
  if window.total > 0 then
    window.first = entry_of(redis.call('HGET', window.key, bucket_field(window.name, window.oldest)))
  end
end

function log.reset(window, seen)
  return window.total == 0 and 0 or window.first + window.per - seen
end

function log.numbers(window)
  return window.total, window.oldest, window.next_number, window.first, window.last
end

-- Sliding counters. Buckets are as wide as the window; the one before the current counts by its weight. The
-- products stay within 2^53, so their quotients are rounded the right way.

local counter = setmetatable({}, {__index = sliding})

function counter.open(window, per, _, total, oldest)
  window.width, window.behind = per, 1
  window.total, window.oldest = total, oldest
end

function counter.settle(window, seen)
  sliding.settle(window, seen)
  window.current, window.previous = sliding.index(window, seen), 0
  if window.total > 0 and window.oldest < window.current then
    window.previous = tonumber(redis.call('HGET', window.key, bucket_field(window.name, window.oldest)))
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
    for index, count in buckets_in_use(window.key, window.name, current) do
      current, previous, full = index + 1, count, full - count
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

function fixed.open(window, per, shifts, total, oldest)
  window.width, window.behind = per, 0
  window.total, window.oldest = total, oldest
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

local token_bucket = {fields = {'d', 'f'}}

function token_bucket.open(window, token, rate, debt, repaid_from)
  window.token, window.rate = token, tonumber(rate)
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

function token_bucket.uncharge(window, _, cost)
  window.debt = math.max(window.debt - cost * window.token, 0)
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

local algorithms = {s = sliding, l = log, c = counter, f = fixed, b = token_bucket}
