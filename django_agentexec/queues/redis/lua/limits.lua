-- Limits, shared by all scripts. A limit is a key with a maximum of claims, and a number of starts per period (ms); in
-- texts each is '\31' and "key=maximum=count=period", in which missing numbers are empty. The limits of a shared
-- partition are a part of its name, those of an activity with a lock key a suffix in its meta. `overrides` holds, by
-- key, the limits of rows, which take precedence; a maximum of 0 pauses.
--
-- `slots` holds an entry "key\0id" for each claim. `starts` holds an entry "key\0", end of the period (16 hex digits)
-- and id for each start of the current periods. `parked` holds, for each parked partition, an entry "key\0", priority,
-- turn (16 hex digits) and partition: of the limit that was reached, in the order in which they resume. An entry
-- whose turn is not that of the partition is outdated. `resumes` holds the time (ms) at which a key permits another
-- start. Whenever a limit permits a claim, one of its parked partitions has a turn; a claim passes this on to the next.
-- If one is lost, as when an earlier release has claimed its activity, the next heartbeat repairs it.
local KEYS_PER_HEARTBEAT = 16
local ENTRIES_PER_HEARTBEAT = 100
local MAX_UNPARKED = 1000  -- partitions that resume at once after a change of a limit; claims resume the others

-- Returns the limits of an activity, by its partition and the suffix in its meta, or nil.
local function limits_of(partition, suffix)
  local kind = string.sub(partition, 1, 2)
  if kind == 'i:' then return nil end
  local text = (kind == 'f:' or kind == 'c:') and partition or suffix
  local at = string.find(text, '\31', 1, true)
  return at and string.sub(text, at)
end

local function each_limit(limits) return string.gmatch(limits, '\31([^=\31]+)=(%d*)=(%d*)=(%d*)') end

-- Returns the first and last bounds of the entries of a key in `slots`, `starts` or `parked`.
local function entries_of(key) return '[' .. key .. '\0', '(' .. key .. '\1' end

local function set_limited()
  if state.limited then return end
  state.limited = true
  redis.call('HSET', counters, 'limited', '1')
end

-- Returns the numbers of a limit that apply: those of a row if there is one.
local function effective(key, maximum, count, period)
  local override = state.revision and redis.call('HGET', overrides, key)
  if not override then return maximum, count, period end
  return string.match(override, '^(%d*)=(%d*)=(%d*)$')
end

-- Returns whether a limit is reached, and the time at which it permits another start, if that depends on time.
local function is_reached(key, maximum, count)
  if maximum ~= '' and (maximum == '0' or redis.call('ZLEXCOUNT', slots, entries_of(key)) >= tonumber(maximum)) then
    return true
  end
  if count ~= '' then
    local first, last = entries_of(key)
    redis.call('ZREMRANGEBYLEX', starts, first, '[' .. key .. '\0' .. string.format('%016x', now))
    if redis.call('ZLEXCOUNT', starts, first, last) >= tonumber(count) then
      local oldest = redis.call('ZRANGEBYLEX', starts, first, last, 'LIMIT', 0, 1)[1]
      return true, oldest and tonumber(string.sub(oldest, #key + 2, #key + 17), 16) + 1
    end
  end
  return false
end

-- Returns the first key of these limits that is reached, and the time at which it permits another start; or nil.
local function first_reached(limits)
  for key, maximum, count, period in each_limit(limits) do
    maximum, count = effective(key, maximum, count, period)
    local reached, resumes_at = is_reached(key, maximum, count)
    if reached then return key, resumes_at end
  end
end

-- Gives up to `count` partitions that are parked for a key a turn again. Removes outdated entries.
local function unpark(key, count)
  local first, last = entries_of(key)
  while count > 0 do
    local entry = redis.call('ZRANGEBYLEX', parked, first, last, 'LIMIT', 0, 1)[1]
    if not entry then return end
    redis.call('ZREM', parked, entry)
    local turn, partition = string.sub(entry, #key + 3, #key + 18), string.sub(entry, #key + 19)
    local score = PARKED + tonumber(turn, 16)
    for _, ring in ipairs({ready, suspects}) do
      if tonumber(redis.call('ZSCORE', ring, partition) or 0) == score then
        redis.call('ZREM', ring, partition)
        count = count - offer({partition})
      end
    end
  end
end

-- Lets a partition that a limit of another key occupied for nothing, or only in part, resume the others.
local function pass_on(limits, except)
  if not state.limited then return end
  for key, maximum, count, period in each_limit(limits) do
    maximum, count = effective(key, maximum, count, period)
    if key ~= except and not is_reached(key, maximum, count) then unpark(key, 1) end
  end
end

-- Parks a partition that is in no ring, since the limit of `key` is reached (until `resumes_at`, if known).
local function park(ring, partition, priority, limits, key, resumes_at)
  local turn = redis.call('HINCRBY', counters, 'turn', 1)
  redis.call('ZADD', ring, int(PARKED + turn), partition)
  redis.call('ZADD', parked, 0, key .. '\0' .. priority .. string.format('%016x', turn) .. partition)
  if resumes_at then redis.call('ZADD', resumes, 'LT', resumes_at, key) end
  set_limited()
  pass_on(limits, key)
end

-- Occupies a slot of each limit, for a claim that is made now.
local function take_slots(limits, id)
  for key, maximum, count, period in each_limit(limits) do
    maximum, count, period = effective(key, maximum, count, period)
    redis.call('ZADD', slots, 0, key .. '\0' .. id)
    if count ~= '' then
      redis.call('ZADD', starts, 0, key .. '\0' .. string.format('%016x', now + tonumber(period)) .. id)
    end
  end
  set_limited()
end

-- Frees the slots of a claim that has ended.
local function free_slots(limits, id)
  for key in each_limit(limits) do
    if redis.call('ZREM', slots, key .. '\0' .. id) == 1 then unpark(key, 1) end
  end
end

-- Resumes the keys that permit another start by now; returns the milliseconds until the next, or -1.
local function resume_due()
  if not state.limited then return -1 end
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', resumes, '-inf', now, 'LIMIT', 0, MAX_BATCH)) do
    redis.call('ZREM', resumes, key)
    unpark(key, 1)
  end
  local first = redis.call('ZRANGE', resumes, 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, tonumber(first[2]) - now) or -1
end
