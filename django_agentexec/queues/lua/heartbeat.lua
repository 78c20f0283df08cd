-- Extends leases, promotes due and reclaims expired activities.
-- ARGV from 3: epoch the worker knows (or ''), server is new to the worker (0/1), pause (ms), then per claim
-- id, fence, meta (as it was claimed). Returns {epoch, {lost ids}, {canceled ids}}.
local lost, canceled = {}, {}
local pause_ms = tonumber(ARGV[5])
if has_lost_keys() then forget_everything() end
notice_loss(ARGV[3], #ARGV > 5 and 'running' or 'none', ARGV[4] == '1', pause_ms)
local pausing = pause_left() > 0

-- In the pause after a loss of data a worker that still runs an activity takes its claim back.
local function restore(id, fence, text)
  local _, _, _, _, partition = unpack_meta(text)
  if redis.call('HEXISTS', locks, partition) == 1 or redis.call('ZSCORE', leases, id) then return false end
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
  redis.call('ZADD', leases, now + lease_ms, id)
  redis.call('HSET', meta, id, text)
  return true
end

local ids, partitions, extended = {}, {}, {}
for i = 6, #ARGV, 3 do
  local _, _, _, _, partition = unpack_meta(ARGV[i + 2])
  ids[#ids + 1], partitions[#partitions + 1] = ARGV[i], partition
end
for n, known in ipairs(values_of(locks, partitions)) do
  local id, fence, text = ids[n], ARGV[3 * n + 4], ARGV[3 * n + 5]
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
