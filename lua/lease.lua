-- lease.lua: what fits of tokens that a node would like to be charged in advance.
--
-- It stands between subject.lua and take.lua, and has no KEYS, ARGV or Returns of its own. The same arithmetic as in engine/src/lease.rs,
-- number for number; its head says why leases are what they are. Products stay within 2^53, so their quotients are
-- rounded the right way.

-- All of a limit, in the millionths that drift counts in.
local WHOLE = 1000000
-- Windows count as no longer than this.
local LONGEST_MS = 1000000000
local MIN_LIFE_MS = 50
local LEAST_OF_BUCKET = 8

-- The longest life in ms if all nodes go on as this one: drift of the time in which they fill the window, or of the window.
local function longest_for_demand(window, ask)
  local share = math.floor(window.capacity / ask.nodes)
  local fills_ms = math.floor(share * ask.life_ms / ask.tokens)
  return math.floor(ask.drift * math.min(math.max(fills_ms, window.per / 1000), LONGEST_MS) / WHOLE)
end

-- The longest life in ms: the less of the window is used, the less there is that leaves late.
local function longest_life(window, remaining, ask, seen)
  local drift = ask.drift
  if window.algorithm == token_bucket then
    -- A charge that is dated ahead holds the refill back, however full the bucket is.
    local fills_us = math.floor(window.capacity * window.token / window.rate)
    return math.floor(drift * math.min(math.floor(fills_us / 1000), LONGEST_MS) / WHOLE)
  end
  local used = math.max(math.floor((window.capacity - remaining) * WHOLE / window.capacity), 1)
  local longest = math.floor(drift * math.min(window.per / 1000, LONGEST_MS) / used)
  longest = math.min(longest, longest_for_demand(window, ask))
  if window.algorithm ~= fixed then
    return longest
  end
  local ends_at = fixed.leaves_at(window, fixed.index(window, seen))
  return math.min(longest, math.floor((ends_at - seen) / 1000))
end

-- The most tokens for one node.
local function most_tokens(window, remaining, drift, nodes)
  local over_all = math.max(math.floor(drift * window.capacity / WHOLE), math.floor(remaining / 4))
  return math.min(remaining, math.floor(over_all / nodes))
end

-- The fewest tokens that are worth a lease: what a bucket granted and nobody spent is lost to it.
local function least_tokens(window, remaining)
  return window.algorithm == token_bucket and remaining * 2 < window.capacity and LEAST_OF_BUCKET or 1
end

-- How many tokens fit of what is asked for, and their life in ms; 0 and 0 when nothing is worth it.
local function fit_lease(subject, ask)
  local life, tokens, least = ask.life_ms, ask.tokens, 1
  for _, window in ipairs(subject.windows) do
    local remaining = window.algorithm.remaining(window, subject.seen)
    least = math.max(least, least_tokens(window, remaining))
    life = math.min(life, longest_life(window, remaining, ask, subject.seen))
    tokens = math.min(tokens, most_tokens(window, remaining, ask.drift, ask.nodes))
  end
  tokens = math.min(tokens, math.floor(ask.tokens * life / ask.life_ms))
  life = math.min(life, math.max(math.ceil(ask.life_ms * tokens / ask.tokens), MIN_LIFE_MS))
  if tokens < least or life < MIN_LIFE_MS then
    return 0, 0
  end
  return tokens, life
end
