-- Adds activities that are not in the queue yet.
-- ARGV from 3: the highest fence of their rows, then per activity id, priority, sequence (microseconds, 0 appends),
-- delay (ms), crashes, again (0/1), partition, limits.
-- Returns the number of added activities.
local added, has_delayed, entries, ids, seen, new = 0, false, {}, {}, {}, {}
local MAX_FENCE = 2 ^ 53 - 1e12  -- Lua's numbers represent integers up to 2^53 exactly
local last = tonumber(redis.call('HGET', counters, 'sequence') or 0)

for i = 4, #ARGV, 8 do ids[#ids + 1] = ARGV[i] end
local known = values_of(meta, ids)

-- A row rejects writes under a fence smaller than its own. The fence of a row may come from a server whose clock was
-- ahead and which has lost its data since: the next claim needs a larger fence.
local bound = tonumber(ARGV[3])
if bound > now_us and bound < MAX_FENCE and bound > tonumber(redis.call('HGET', counters, 'fence') or 0) then
  redis.call('HSET', counters, 'fence', ARGV[3])
end

for n, id in ipairs(ids) do
  local i = 8 * n - 4
  local priority, at, delay, crashes = ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), ARGV[i + 4]
  local partition, limits = ARGV[i + 6], ARGV[i + 7]
  if at == 0 then
    last = math.max(last + 1, now_us)
    at = last
  end
  local sequence = string.format('%016x', at)
  if not known[n] and not seen[id] then
    seen[id] = true
    new[#new + 1] = id
    if delay > 0 then
      add_delayed(id, priority, sequence, crashes, partition, delay, limits)
      has_delayed = true
    else
      entries[#entries + 1] = {id, priority, sequence, crashes, partition, limits}
    end
    added = added + 1
  elseif ARGV[i + 5] == '1' and redis.call('ZSCORE', leases, id) then
    redis.call('HSET', again, id, priority .. ' ' .. sequence .. ' ' .. crashes .. ' ' .. int(delay))
    added = added + 1
  end
end

forget_expired_leases(new)
if redis.call('ZCARD', dead) > 0 then call_with('ZREM', dead, ids) end
add_pending(entries)
redis.call('HSET', counters, 'sequence', int(last))
-- Delayed activities also wake a waiting worker, since they may come due before its wait ends.
if has_delayed or turns_of(ready) > 0 then wake_one() end
return added
