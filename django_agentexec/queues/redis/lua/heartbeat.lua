-- Extends leases, promotes due and reclaims expired activities.
-- ARGV from 3: epoch the worker knows (or ''), pause (ms), then per claim id, fence, meta (as it was claimed).
-- Returns {epoch, {lost ids}, {canceled ids}}.
local FIRST_CLAIM = 5
local lost, canceled = {}, {}
local pause_ms = tonumber(ARGV[4])
if has_lost_keys() then delete_places() end
detect_loss(ARGV[3], #ARGV >= FIRST_CLAIM and 'running' or 'none', pause_ms)
local pausing = pause_left() > 0

-- Of two claims of one partition the newer is valid: a restored older copy of the data may contain the earlier claim.
-- The activity of the earlier claim returns to its partition; if it has ended meanwhile, its row ends the next claim.
local holders
local function put_back_holder(partition)
  if is_own(partition) or is_single(partition) then
    local id = string.sub(partition, 3, ID + 2)
    if redis.call('ZSCORE', leases, id) then put_back(id, redis.call('HGET', meta, id)) end
    return
  end
  if not holders then
    holders = {}
    local leased = redis.call('ZRANGE', leases, 0, -1)
    for n, text in ipairs(values_of(meta, leased)) do
      local _, _, _, _, held = unpack_meta(text or '')
      if held then holders[held] = {leased[n], text} end
    end
  end
  local holder = holders[partition]
  if holder then put_back(holder[1], holder[2]) end
end

-- Restores a claim that its worker still holds; only in the pause after a loss of data.
local function restore(id, fence, text)
  local _, _, _, holder, partition, suffix = unpack_meta(text)
  local other = redis.call('HGET', locks, partition)
  if other and tonumber(other) > tonumber(fence) then return false end
  if other then put_back_holder(partition) end
  if redis.call('ZSCORE', leases, id) then return false end
  -- The reconciler, or an older copy of the data, may have added the activity to the queue meanwhile.
  local present = redis.call('HGET', meta, id)
  if present then
    local priority, sequence, _, _, place = unpack_meta(present)
    redis.call('ZREM', pending, member(place, priority, sequence, id))
    redis.call('ZREM', delayed, id)
    if place ~= partition then
      redis.call('ZREM', ready, place)
      redis.call('ZREM', suspects, place)
      offer({place})
    end
  end
  redis.call('ZREM', ready, partition)
  redis.call('ZREM', suspects, partition)
  redis.call('HSET', locks, partition, fence)
  -- The fence may come from a server whose clock is ahead.
  if tonumber(redis.call('HGET', counters, 'fence') or 0) < tonumber(fence) then
    redis.call('HSET', counters, 'fence', fence)
  end
  redis.call('ZADD', leases, now + lease_ms, id)
  redis.call('ZADD', by_worker, 0, entry_of(holder, id))
  redis.call('HSET', meta, id, text)
  local limits = limits_of(partition, suffix)
  if limits then take_slots(limits, id) end
  if holders then holders[partition] = {id, text} end
  return true
end

local ids, partitions, extended = {}, {}, {}
for i = FIRST_CLAIM, #ARGV, 3 do
  local _, _, _, _, partition = unpack_meta(ARGV[i + 2])
  ids[#ids + 1], partitions[#partitions + 1] = ARGV[i], partition
end
for n, known in ipairs(values_of(locks, partitions)) do
  local id, fence, text = ids[n], ARGV[FIRST_CLAIM + 3 * n - 2], ARGV[FIRST_CLAIM + 3 * n - 1]
  if known == fence then
    extended[#extended + 1], extended[#extended + 2] = now + lease_ms, id
  else
    refund(id, fence)
    if not (pausing and restore(id, fence, text)) then lost[#lost + 1] = id end
  end
end
call_with('ZADD', leases, extended, 'XX')
if redis.call('HLEN', cancels) > 0 then
  for i = 2, #extended, 2 do
    if redis.call('HEXISTS', cancels, extended[i]) == 1 then canceled[#canceled + 1] = extended[i] end
  end
end

-- If no heartbeat arrived for a long time, this server was unavailable, or its clock has jumped: the other workers get
-- the time of one heartbeat before their leases expire. Releases before 0.2 write only `beat`, which shows that such
-- workers are running and that their leases are missing in the index.
local beats = redis.call('HMGET', counters, 'beat', 'indexed_beat')
local last_beat = tonumber(beats[1] or now)
redis.call('HSET', counters, 'beat', int(now), 'indexed_beat', int(now))
if beats[1] ~= beats[2] then redis.call('HSET', counters, 'mixed_until', int(now + MIXED_FOR)) end
if now - last_beat > lease_ms / 2 + 1000 then
  local late = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now + pause_ms)) do
    late[#late + 1], late[#late + 2] = now + pause_ms, id
  end
  call_with('ZADD', leases, late)
end

promote_due()
if not pausing then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, MAX_BATCH)) do
    put_back(id, redis.call('HGET', meta, id), 'expired_lease')
  end
end
-- Releases before 0.2 leave entries in the keys that they do not know.
if redis.call('ZCARD', leases) == 0 then redis.call('DEL', by_worker) end
if redis.call('HLEN', meta) == 0 then redis.call('DEL', expired_leases) end

-- Removes slots of claims that an earlier release has ended, and starts of past periods: some entries per heartbeat.
local function sweep(name, key, is_current)
  local page = redis.call('ZSCAN', key, redis.call('HGET', counters, name) or '0', 'COUNT', ENTRIES_PER_HEARTBEAT)
  redis.call('HSET', counters, name, page[1])
  for i = 1, #page[2], 2 do
    local entry = page[2][i]
    if not is_current(entry) then
      redis.call('ZREM', key, entry)
      unpark(string.match(entry, '^[^%z]+'), 1)
    end
  end
end

-- Gives a turn to a partition of some parked keys that permit a claim, and to parked partitions without an entry.
local function repair_parked()
  local last = redis.call('HGET', counters, 'parked_key')
  for _ = 1, KEYS_PER_HEARTBEAT do
    local from = last and '(' .. last .. '\1' or '-'
    local entry = redis.call('ZRANGEBYLEX', parked, from, '+', 'LIMIT', 0, 1)[1]
    last = entry and string.match(entry, '^[^%z]+')
    if not entry then break end
    local partition = string.sub(entry, #last + 19)
    local _, text = head_of(partition)
    local _, _, _, _, _, suffix = unpack_meta(text or '')
    local limits = limits_of(partition, suffix or '')
    if not limits or not first_reached(limits) then unpark(last, 1) end
  end
  if last then redis.call('HSET', counters, 'parked_key', last) else redis.call('HDEL', counters, 'parked_key') end
  if redis.call('ZCARD', parked) > 0 then return end
  for _, ring in ipairs({ready, suspects}) do
    local stranded = redis.call('ZRANGEBYSCORE', ring, int(PARKED), '+inf', 'LIMIT', 0, MAX_UNPARKED)
    call_with('ZREM', ring, stranded)
    offer(stranded)
  end
end

if state.limited then
  sweep('slots_cursor', slots, function(entry) return redis.call('ZSCORE', leases, string.sub(entry, -ID)) end)
  sweep('starts_cursor', starts, function(entry)
    return tonumber(string.sub(entry, -ID - 16, -ID - 1), 16) >= now
  end)
  resume_due()
  repair_parked()
  if redis.call('EXISTS', slots, starts, parked, resumes) == 0 then
    redis.call('HDEL', counters, 'limited', 'slots_cursor', 'starts_cursor', 'parked_key')
  end
end
if turns_of(ready) > 0 then wake_one() end
return {state.epoch, lost, canceled}
