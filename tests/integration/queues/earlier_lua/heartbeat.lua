-- Extends leases, promotes due and reclaims expired activities.
-- ARGV from 3: epoch the worker knows (or ''), pause (ms), then per claim id, fence, meta (as it was claimed).
-- Returns {epoch, {lost ids}, {canceled ids}}.
local FIRST_CLAIM = 5
local lost, canceled = {}, {}
local pause_ms = tonumber(ARGV[4])
if has_lost_keys() then forget_everything() end
notice_loss(ARGV[3], #ARGV >= FIRST_CLAIM and 'running' or 'none', pause_ms)
local pausing = pause_left() > 0

-- Of two claims of one partition the newer one is right: an older copy of the data may know the one before it. What
-- that one ran goes back; if it has ended meanwhile, its row says so to who claims it next.
local holders
local function put_back_holder(partition)
  if not holders then
    holders = {}
    local leased = redis.call('ZRANGE', leases, 0, -1)
    for n, text in ipairs(values_of(meta, leased)) do
      local _, _, _, _, held = unpack_meta(text or '')
      if held then holders[held] = {leased[n], text} end
    end
  end
  local holder = holders[partition]
  if holder then put_back(holder[1], holder[2], false) end
end

-- In the pause after a loss of data a worker that still runs an activity takes its claim back.
local function restore(id, fence, text)
  local _, _, _, _, partition = unpack_meta(text)
  local other = redis.call('HGET', locks, partition)
  if other and tonumber(other) > tonumber(fence) then return false end
  if other then put_back_holder(partition) end
  if redis.call('ZSCORE', leases, id) then return false end
  -- The reconciler, or an older copy of the data, may have put it into the queue meanwhile.
  local present = redis.call('HGET', meta, id)
  if present then
    local priority, sequence = unpack_meta(present)
    redis.call('ZREM', pending, member(partition, priority, sequence, id))
    redis.call('ZREM', delayed, id)
  end
  redis.call('ZREM', ready, partition)
  redis.call('ZREM', suspects, partition)
  redis.call('HSET', locks, partition, fence)
  -- It may come from a server whose clock is ahead.
  if tonumber(redis.call('HGET', counters, 'fence') or 0) < tonumber(fence) then
    redis.call('HSET', counters, 'fence', fence)
  end
  redis.call('ZADD', leases, now + lease_ms, id)
  redis.call('HSET', meta, id, text)
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
  elseif not (pausing and restore(id, fence, text)) then
    lost[#lost + 1] = id
  end
end
call_with('ZADD', leases, extended, 'XX')
if redis.call('HLEN', cancels) > 0 then
  for i = 2, #extended, 2 do
    if redis.call('HEXISTS', cancels, extended[i]) == 1 then canceled[#canceled + 1] = extended[i] end
  end
end

-- If nobody's beat has come for long, this server was away, or its clock has jumped: the others get the time of
-- a beat before their leases count as expired.
local last_beat = tonumber(redis.call('HGET', counters, 'beat') or now)
redis.call('HSET', counters, 'beat', int(now))
if now - last_beat > lease_ms / 2 + 1000 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now + pause_ms)) do
    redis.call('ZADD', leases, now + pause_ms, id)
  end
end

promote_due()
if not pausing then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, BATCH)) do
    put_back(id, redis.call('HGET', meta, id), true)
  end
end
if redis.call('ZCARD', ready) > 0 then wake_one() end
return {state.epoch, lost, canceled}
