-- Adds activities that are not there yet.
-- ARGV from 3: per activity id, priority, sequence (microseconds, 0 appends), delay (ms), crashes, again (0/1), partition.
-- Returns how many were added.
local added, delayed_some, entries, ids, seen = 0, false, {}, {}, {}
local last = tonumber(redis.call('HGET', counters, 'sequence') or 0)

for i = 3, #ARGV, 7 do ids[#ids + 1] = ARGV[i] end
local known = values_of(meta, ids)

for n, id in ipairs(ids) do
  local i = 7 * n - 4
  local priority, at, delay, crashes = ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), ARGV[i + 4]
  local partition = ARGV[i + 6]
  if at == 0 then
    last = math.max(last + 1, now_us)
    at = last
  end
  local sequence = string.format('%016x', at)
  if not known[n] and not seen[id] then
    seen[id] = true
    if delay > 0 then
      add_delayed(id, priority, sequence, crashes, partition, delay)
      delayed_some = true
    else
      entries[#entries + 1] = {id, priority, sequence, crashes, partition}
    end
    added = added + 1
  elseif ARGV[i + 5] == '1' and redis.call('ZSCORE', leases, id) then
    redis.call('HSET', again, id, priority .. ' ' .. sequence .. ' ' .. crashes .. ' ' .. int(delay))
    added = added + 1
  end
end

if redis.call('ZCARD', dead) > 0 then call_with('ZREM', dead, ids) end
add_pending(entries)
redis.call('HSET', counters, 'sequence', int(last))
-- A sleeper must also hear of delayed work, since it may come due before the sleep would end.
if delayed_some or redis.call('ZCARD', ready) > 0 then wake_one() end
return added
