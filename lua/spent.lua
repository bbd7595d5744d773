-- spent.lua: counts what nodes admitted by themselves while this store was away, which nobody asked it for.
--
-- The same arithmetic as `record` in engine/src/counter/spent.rs, number for number; its head says what each kind of
-- window makes of it. It cannot be refused any more, so it counts regardless of limits, and of whether the server has
-- seen the subject.
--
-- KEYS     1           the subject's hash
-- ARGV     1           id: what this report is known by, so that it counts once
--          2           number of slices, and for each of them, the oldest first, two values
--                      age_us: how long ago the latest of its tokens was spent
--                      tokens: how many
--          then        its windows, as subject.lua says
--
-- Returns  a list of two integers: the clock's time in us, and 1, or 0 when this report counts already
--
-- Cost     one HMGET, one HGET and, unless the report was known, one or two HSET and one PEXPIREAT; for each log also
--          one HGET for each entry dated after the oldest slice, which moves up; for each bucket that is not the newest
--          one HGET for each chunk begun since.
--
-- buckets.lua, windows.lua and subject.lua stand before it in the same script.

-- Of the reports and returns that a subject knows, reports take no more, as in engine/src/counter/returns.rs.
local MOST_REPORTS = 128

-- A bucket goes through the slices from where it was left: it is not to be repaid up to now before them.
local settle_bucket = token_bucket.settle
function token_bucket.settle() end

-- What is known and still counts, as text, and whether it is more than that nothing goes back; nil when `id` is among it.
local function others_known(subject, id)
  local live, was_told = {}, false
  for known_id, until_us in string.gmatch(redis.call('HGET', subject.key, 'r') or '', '(%w+) (%d+)') do
    if tonumber(until_us) >= subject.seen then
      if known_id == id then
        return nil
      end
      was_told = was_told or known_id ~= 'all'
      table.insert(live, known_id .. ' ' .. until_us)
    end
  end
  return live, was_told
end

local function leaves_at(window, date)
  local algorithm = window.algorithm
  return algorithm.leaves_at(window, algorithm == log and date or algorithm.index(window, date))
end

-- Of the slices those that a window is charged: the youngest that it can hold, as far as they count. The oldest first.
local function youngest(window, slices, seen)
  local room, first, oldest = window.capacity, #slices + 1, 0
  while first > 1 and room > 0 and leaves_at(window, slices[first - 1].date) > seen do
    first = first - 1
    oldest = math.min(slices[first].tokens, room)
    room = room - oldest
  end
  local kept = {}
  for i = first, #slices do
    kept[#kept + 1] = {date = slices[i].date, tokens = i == first and oldest or slices[i].tokens}
  end
  return kept
end

-- Each of these records slices in one kind of window, and returns until when the report is to be known, us; 0 for not at
-- all.

local function record_buckets(window, slices, seen)
  local until_us = 0
  for _, slice in ipairs(youngest(window, slices, seen)) do
    until_us = math.max(until_us, window.algorithm.charge(window, slice.date, slice.tokens))
  end
  return until_us
end

-- One walk over the entries dated later than the oldest slice, and not one for each slice.
local function record_log(window, slices, seen)
  local kept = youngest(window, slices, seen)
  if #kept == 0 then
    return 0
  end
  local number, later = window.next_number, {}
  while number > window.oldest do
    local value = redis.call('HGET', window.key, numbered_field(window.name, number - 1))
    if entry_of(value) <= kept[1].date then
      break
    end
    later[#later + 1], number = value, number - 1
  end
  if number == window.oldest then
    window.first = kept[1].date
  end
  local values = {}
  local function put(value)
    values[#values + 1], values[#values + 2] = numbered_field(window.name, number), value
    number = number + 1
  end
  for _, slice in ipairs(kept) do
    while #later > 0 and entry_of(later[#later]) <= slice.date do
      put(table.remove(later))
    end
    put(text(slice.date) .. ' ' .. text(slice.tokens))
    window.total = window.total + slice.tokens
  end
  while #later > 0 do
    put(table.remove(later))
  end
  call_with('HSET', window.key, values)
  window.next_number, window.last = number, math.max(window.last, kept[#kept].date)
  return log.leaves_at(window, kept[#kept].date)
end

local function count_at(window, index)
  for at, count in buckets.walk(window) do
    if at == index then
      return count
    end
  end
  return 0
end

local function record_counter(window, slices, seen)
  local until_us = 0
  for _, slice in ipairs(slices) do
    local used = count_at(window, counter.index(window, slice.date))
    local tokens = math.min(slice.tokens, math.max(window.capacity - used, 0))
    if tokens > 0 and leaves_at(window, slice.date) > seen then
      until_us = math.max(until_us, counter.charge(window, slice.date, tokens))
    end
  end
  return until_us
end

local function record_bucket(window, slices, seen, was_told)
  local debt, repaid_from = window.debt, window.repaid_from
  settle_bucket(window, seen)
  if was_told or window.debt > 0 then
    window.debt, window.repaid_from = debt, repaid_from
  else
    window.debt, window.repaid_from = 0, 0
  end
  local empty = window.capacity * window.token
  for _, slice in ipairs(slices) do
    settle_bucket(window, slice.date)
    local taken = math.min(slice.tokens, window.capacity) * window.token
    window.debt = math.min(window.debt + taken, math.max(empty, window.debt))
  end
  settle_bucket(window, seen)
  return seen + math.ceil(empty / window.rate)
end

local recorders = {
  [sliding] = record_buckets, [fixed] = record_buckets, [log] = record_log, [counter] = record_counter,
  [token_bucket] = record_bucket,
}

local id, number_of_slices = ARGV[1], tonumber(ARGV[2])
local subject = open_subject(KEYS[1], 3 + 2 * number_of_slices)
local known, was_told = others_known(subject, id)
if not known then
  return {now, 0}
end

local slices = {}
for i = 1, number_of_slices do
  local age, tokens = tonumber(ARGV[1 + 2 * i]), tonumber(ARGV[2 + 2 * i])
  slices[i] = {date = math.max(subject.seen - age, 0), tokens = tokens}
end

local until_us = 0
for _, window in ipairs(subject.windows) do
  until_us = math.max(until_us, recorders[window.algorithm](window, slices, subject.seen, was_told))
end
if until_us > 0 then
  -- Never sooner than it stands already: another window may need the hash for longer.
  subject.expires_ms = math.max(subject.expires_ms, math.ceil(until_us / 1000))
  save(subject)
  if #known < MOST_REPORTS then
    table.insert(known, id .. ' ' .. text(until_us))
    redis.call('HSET', subject.key, 'r', table.concat(known, ' '))
  end
  -- Last, since a moment that has passed while the script ran takes the hash away at once.
  redis.call('PEXPIREAT', subject.key, text(subject.expires_ms))
elseif subject.known then
  save(subject)
end
return {now, 1}
