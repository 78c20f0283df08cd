-- The moves of an activity between its places, shared by all scripts.

local function add_delayed(id, priority, sequence, crashes, partition, delay, suffix)
  redis.call('HSET', meta, id, pack(priority, sequence, crashes, '-' .. limits_in(suffix), home_of(partition)))
  redis.call('ZADD', delayed, now + delay, id)
end

-- Ends a lease and frees its partition; the caller moves the id to its next place, then offers the partition.
local function unlock(id, partition, worker, suffix)
  redis.call('ZREM', leases, id)
  redis.call('ZREM', by_worker, entry_of(worker, id))
  redis.call('HDEL', locks, partition)
  local limits = limits_of(partition, suffix)
  if limits then free_slots(limits, id) end
end

-- Refunds an expired lease whose worker turns out to be alive.
local function refund(id, fence)
  local refunded, fences = expired_leases_of(id)
  for n, expired in ipairs(fences) do
    if expired == fence then
      table.remove(fences, n)
      set_expired_leases(id, refunded + 1, fences)
      local _, _, _, _, partition = unpack_meta(redis.call('HGET', meta, id) or '')
      if #fences == 0 and partition then offer({partition}) end
      return
    end
  end
end

-- Enqueues an activity again that was retried manually while it was still running (canceled, but not yet stopped).
local function run_again(id, partition, suffix)
  local retry = redis.call('HGET', again, id)
  if not retry then return false end
  redis.call('HDEL', again, id)
  forget_expired_leases({id})
  local priority, sequence, crashes, delay = string.match(retry, '^(%d) (%x+) (%d+) (%d+)$')
  if delay == '0' then
    add_pending({{id, priority, sequence, crashes, partition, limits_in(suffix)}})
  else
    add_delayed(id, priority, sequence, crashes, partition, tonumber(delay), suffix)
  end
  return true
end

-- Returns a sequence that places an activity before all others of its partition and priority. It was the first of
-- them when it was claimed; after a loss of data the others may have been enqueued again with other sequences.
local function front_of(partition, priority, sequence, id)
  local first = not is_own(partition) and first_pending(partition, priority)
  if not first or string.sub(first, -TAIL, -TAIL) ~= priority then return sequence end
  if member(partition, priority, sequence, id) < first then return sequence end
  return string.format('%016x', math.max(0, tonumber(string.sub(first, -TAIL + 1, -ID - 1), 16) - 1))
end

-- Returns the partition and suffix of an activity that gets these limits in addition to its own.
local function with_limits(partition, suffix, added)
  local limits = limits_of(partition, suffix) or ''
  for limit in string.gmatch(added, '\31[^\31]+') do
    local key = string.match(limit, '^\31[^=]+=')
    if not string.find(limits, key, 1, true) then
      limits = limits .. limit
      if is_own(partition) then
        partition = 'f:' .. limit
      elseif is_shared(home_of(partition)) then
        partition = home_of(partition) .. limit
      else
        suffix = suffix .. limit
      end
    end
  end
  return partition, suffix
end

-- Ends a lease whose holder did not finish: the activity returns to its former place in its partition.
-- `charge`: 'crash' if its worker is known to have died, 'expired_lease' if the lease has expired, else nil.
-- `held`: limits that it gets in addition.
local function put_back(id, text, charge, held)
  if not text then
    redis.call('ZREM', leases, id)
    return
  end
  local priority, sequence, crashes, worker, partition, suffix = unpack_meta(text)
  local fence = charge == 'expired_lease' and redis.call('HGET', locks, partition)
  unlock(id, partition, worker, suffix)
  local was_canceled = redis.call('HDEL', cancels, id) == 1
  if not run_again(id, partition, suffix) then
    if was_canceled then
      redis.call('HDEL', meta, id)
      forget_expired_leases({id})
    else
      if charge == 'crash' then crashes = int(tonumber(crashes) + 1) end
      if fence then
        local refunded, fences = expired_leases_of(id)
        fences[#fences + 1] = fence
        set_expired_leases(id, refunded, fences)
      end
      if held then partition, suffix = with_limits(partition, suffix, held) end
      sequence = front_of(home_of(partition), priority, sequence, id)
      add_pending({{id, priority, sequence, crashes, partition, suffix}})
    end
  end
  offer({partition})
end

-- Moves due activities to their partitions; returns the milliseconds until the next is due, or -1.
local function promote_due()
  while true do
    local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
    if not first[2] then return -1 end
    if tonumber(first[2]) > now then return tonumber(first[2]) - now end
    local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, MAX_BATCH)
    call_with('ZREM', delayed, due)
    local entries = {}
    for n, text in ipairs(values_of(meta, due)) do
      if text then
        local priority, sequence, crashes, _, partition, suffix = unpack_meta(text)
        entries[#entries + 1] = {due[n], priority, sequence, crashes, partition, suffix}
      end
    end
    add_pending(entries)
    if #due == MAX_BATCH then return 0 end
  end
end
