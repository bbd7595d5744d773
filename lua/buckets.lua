-- buckets.lua: how the buckets of a window are kept, and found again.
--
-- It stands at the head of every script that counts, and has no KEYS, ARGV or Returns of its own. A bucket is an index and a count.
-- Most subjects have few of them in use, so these stand in one field, the tail, with their sums. When the tail is
-- full it becomes a chunk, a field of its own, and a new one is begun: a subject in full use has some dozens of
-- fields, not one for each bucket. Chunks are numbered without gaps, the oldest first.
--
--   <name>             nothing when no bucket is in use, or the tail:
--                      <index> <buckets>                the index of its first bucket, and what is in use from there
--                      ... <span> <total>               unless it is one bucket: from its first to the newest,
--                                                       and all requests of the window
--                      ... <number> <chunks> <back>     unless there are no chunks: the number of the oldest one,
--                                                       how many there are, and how far before the tail's first
--                                                       bucket the oldest in use is
--   <name>:<number>    a chunk: <index> <buckets>
--
-- <buckets> are counts, the oldest first, with a comma to the next index, or +<n>, to the one n further. Buckets of
-- the oldest chunk that have passed stay in it until all of them have.
--
-- In a window's table: total, oldest (an index; says something only when the total is not 0), newest, from and tail
-- (both words of it), number, chunks, writes (fields and values to be saved) and stale (fields to be forgotten).

-- A tail with all its numbers, and a chunk, are no longer than the 64 bytes that a small hash allows.
local MOST_TAIL = 28
local SMALLEST_READ, LARGEST_READ = 1, 256
-- Lua hands over only some thousand arguments at once.
local MOST_ARGUMENTS = 1000

-- Calls a command with all of these, in as many runs as it takes.
local function call_with(command, key, arguments)
  for i = 1, #arguments, MOST_ARGUMENTS do
    redis.call(command, key, unpack(arguments, i, math.min(i + MOST_ARGUMENTS - 1, #arguments)))
  end
end

local function text(number)
  return string.format('%.0f', number)
end

local function numbered_field(name, number)
  return name .. ':' .. text(number)
end

-- Walks numbered fields from `from` up to the one before `next_number`: number, value. Reads ahead, and more the
-- further it gets.
local function numbered_values(window, from, next_number)
  local values, size, at = {}, 0, 0
  return function()
    if at == size then
      from, at = from + size, 0
      size = math.min(math.max(size * 4, SMALLEST_READ), LARGEST_READ, next_number - from)
      if size == 0 then
        return nil
      end
      local fields = {}
      for i = 1, size do
        fields[i] = numbered_field(window.name, from + i - 1)
      end
      values = redis.call('HMGET', window.key, unpack(fields))
    end
    at = at + 1
    return from + at - 1, values[at]
  end
end

local function first_and_counts(chunk)
  local from, counts = string.match(chunk, '^(%d+) (.*)$')
  return tonumber(from), counts
end

-- Walks the buckets of a text: index, count, and where in the text it stands.
local function each_of(from, counts)
  local index, parts = from, string.gmatch(counts, '()(%d+)%+?(%d*)')
  return function()
    local place, count, gap = parts()
    if not place then
      return nil
    end
    local this = index
    index = this + (tonumber(gap) or 1)
    return this, tonumber(count), place
  end
end

local function link(gap)
  return gap == 1 and ',' or '+' .. text(gap) .. ','
end

local buckets = {}

function buckets.read(window, value)
  window.number, window.chunks = 0, 0
  if not value or value == '' then
    window.total, window.oldest, window.newest, window.from, window.tail = 0, 0, 0, 0, ''
    return
  end
  local pattern = '^(%d+) (%S+) ?(%d*) ?(%d*) ?(%d*) ?(%d*) ?(%d*)$'
  local from, tail, span, total, number, chunks, back = string.match(value, pattern)
  window.from, window.tail = tonumber(from), tail
  window.total, window.newest = tonumber(total) or tonumber(tail), window.from + (tonumber(span) or 0)
  window.number, window.chunks = tonumber(number) or 0, tonumber(chunks) or 0
  window.oldest = window.from - (tonumber(back) or 0)
end

function buckets.text(window)
  if window.total == 0 then
    return ''
  end
  local value, span = text(window.from) .. ' ' .. window.tail, window.newest - window.from
  if window.chunks > 0 then
    local back = window.from - window.oldest
    return string.format('%s %.0f %.0f %.0f %.0f %.0f', value, span, window.total, window.number, window.chunks, back)
  end
  return span == 0 and value or string.format('%s %.0f %.0f', value, span, window.total)
end

-- How many chunks, the newest, are still to be written.
local function unwritten(window)
  return #window.writes / 2
end

-- Walks the buckets in use, the oldest first: index, count.
function buckets.walk(window)
  local written = window.number + window.chunks - unwritten(window)
  local chunks, writes_at, in_text = numbered_values(window, window.number, written), 0, nil
  local function next_text()
    local _, chunk = chunks()
    if not chunk then
      writes_at = writes_at + 2
      chunk = window.writes[writes_at]
    end
    if chunk then
      return each_of(first_and_counts(chunk))
    end
    if writes_at == #window.writes + 2 then
      return each_of(window.from, window.tail)
    end
  end
  in_text = next_text()
  return function()
    while in_text do
      local index, count = in_text()
      if not index then
        in_text = next_text()
      elseif index >= window.oldest then
        return index, count
      end
    end
  end
end

local function drop_chunks(window, count)
  for number = window.number, window.number + count - 1 do
    table.insert(window.stale, numbered_field(window.name, number))
  end
  window.number, window.chunks = window.number + count, window.chunks - count
end

-- Forgets every bucket before `least`.
function buckets.forget(window, least)
  if window.total == 0 or window.oldest >= least then
    return
  end
  if window.newest < least then
    drop_chunks(window, window.chunks)
    window.total = 0
    return
  end
  -- Whether all buckets of a text have passed; those that have are not counted any more.
  local function passes(from, counts)
    for index, count, place in each_of(from, counts) do
      if index >= least then
        window.oldest = index
        return false, place
      end
      window.total = window.total - (index >= window.oldest and count or 0)
    end
    return true
  end
  local gone = 0
  for _, chunk in numbered_values(window, window.number, window.number + window.chunks) do
    if not passes(first_and_counts(chunk)) then
      drop_chunks(window, gone)
      return
    end
    gone = gone + 1
  end
  drop_chunks(window, gone)
  local _, place = passes(window.from, window.tail)
  window.from, window.tail = window.oldest, string.sub(window.tail, place)
end

local function close_tail(window)
  local field = numbered_field(window.name, window.number + window.chunks)
  window.writes[#window.writes + 1] = field
  window.writes[#window.writes + 1] = text(window.from) .. ' ' .. window.tail
  window.chunks = window.chunks + 1
end

-- Puts a bucket after all others.
local function append(window, index, count)
  if window.tail ~= '' then
    local more = link(index - window.newest) .. text(count)
    if #window.tail + #more <= MOST_TAIL then
      window.tail, window.newest = window.tail .. more, index
      return
    end
    close_tail(window)
  end
  window.from, window.newest, window.tail = index, index, text(count)
end

-- Takes the newest chunk away: its first index and its counts.
local function reopen_chunk(window)
  window.chunks = window.chunks - 1
  if unwritten(window) > 0 then
    local chunk = table.remove(window.writes)
    table.remove(window.writes)
    return first_and_counts(chunk)
  end
  local field = numbered_field(window.name, window.number + window.chunks)
  table.insert(window.stale, field)
  return first_and_counts(redis.call('HGET', window.key, field))
end

-- Changes the count of a bucket that need not be the newest: what is not older than it is read, and written anew.
-- Returns by how much it was changed: a bucket that is not in use is not made less than that.
local function change(window, index, by)
  local texts = {{window.from, window.tail}}
  while window.chunks > 0 and index <= texts[#texts][1] do
    table.insert(texts, {reopen_chunk(window)})
  end
  local is_whole, oldest, changed, is_placed = window.chunks == 0, window.oldest, 0, false
  window.tail = ''
  local function put(at, count)
    if count > 0 then
      if is_whole and window.tail == '' and window.chunks == 0 then
        window.oldest = at
      end
      append(window, at, count)
    end
  end
  local function place(count)
    is_placed, changed = true, math.max(by, -count)
    put(index, count + changed)
  end
  for i = #texts, 1, -1 do
    for at, count in each_of(texts[i][1], texts[i][2]) do
      if at >= oldest then
        if not is_placed and at > index then
          place(0)
        end
        if at == index then
          place(count)
        else
          put(at, count)
        end
      end
    end
  end
  if not is_placed then
    place(0)
  end
  window.total = window.total + changed
  return -changed
end

-- Counts `count` more in the bucket at `index`.
function buckets.add(window, index, count)
  if window.total == 0 then
    window.oldest, window.tail = index, ''
    append(window, index, count)
  elseif index > window.newest then
    append(window, index, count)
  elseif index == window.newest then
    local before, last = string.match(window.tail, '^(.*,)(%d+)$')
    window.tail = (before or '') .. text(tonumber(last or window.tail) + count)
  else
    change(window, index, count)
    return
  end
  window.total = window.total + count
end

-- Takes `count` back, as far as the bucket at `index` counts that much.
function buckets.take_back(window, index, count)
  if window.total > 0 and index >= window.oldest and index <= window.newest then
    change(window, index, -count)
  end
end
