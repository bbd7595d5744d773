-- give_back.lua: takes back what runs of take.lua charged, as far as it could still be spent.
--
-- Two things need it: tokens that a node was granted and has not spent, and, in Redis Cluster, a check whose keys are in several
-- slots and cannot be one script: what one slot charged is taken back when another one rejects. The same arithmetic
-- as `give_back` in engine/src/counter.rs, number for number.
--
-- KEYS     1..n        the same as for take.lua; one that was charged a cost and a lease comes twice
-- ARGV     for each key
--                      dated_us: until when the tokens could be spent, by the key's own time, which take.lua returned
--                      id: what this return is known by, so that it is not made twice; empty where nobody was
--                      granted these tokens: it is sent but once, and never too late
--                      tokens: how many go back
--                      its windows, as subject.lua says
--
-- Returns  a list of integers: the clock's time in us, and for each key how many went back; 0 when it is too late,
--          or made already.
--
-- The tokens go back to the bucket that they were charged to. Expiry stays as it is. A subject that has expired is
-- not created again.
--
-- Cost     per key: one HMGET and one HGET, one HSET, or two when there is something to give back; one HGET for each
--          chunk of buckets begun since, which are written anew; of a log the entries dated since are read, and moved
--          when one goes.
--
-- buckets.lua, windows.lua and subject.lua stand before it in the same script.

-- As many returns of one subject are remembered as in engine/src/counter/returns.rs.
local MOST_RETURNS = 256

-- Whether a return is neither too late nor made already, nor of what was charged before the subject was reset. Then it is remembered for as long as it might come again.
local function is_accepted(subject, dated, id)
  if id == '' then
    return true
  end
  if dated < subject.seen then
    return false
  end
  local known = redis.call('HGET', subject.key, 'r') or ''
  local live = {}
  for known_id, until_us in string.gmatch(known, '(%w+) (%d+)') do
    if tonumber(until_us) >= subject.seen then
      if known_id == id or known_id == 'all' then
        return false
      end
      table.insert(live, known_id .. ' ' .. until_us)
    end
  end
  if #live >= MOST_RETURNS then
    return false
  end
  table.insert(live, id .. ' ' .. text(dated))
  redis.call('HSET', subject.key, 'r', table.concat(live, ' '))
  return true
end

local given, at = {now}, 1
for _, key in ipairs(KEYS) do
  local dated, id, tokens = tonumber(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
  local back, subject = 0, nil
  subject, at = open_subject(key, at + 3)
  if subject.known then
    if is_accepted(subject, dated, id) then
      for _, window in ipairs(subject.windows) do
        window.algorithm.uncharge(window, dated, tokens, id ~= '' and subject.seen)
      end
      back = tokens
    end
    -- Also where nothing goes back: a bucket says how far it was settled.
    save(subject)
  end
  table.insert(given, back)
end
return given
