-- Acknowledges claims, then claims more.
-- ARGV from 3: worker, limit, quarantine (0/1), epoch the worker knows (or ''), active rows (none, waiting,
-- running), server is new to the worker (0/1), pause (ms), then per acknowledgment id, fence, outcome, delay (ms).
-- Returns {epoch, ms until next due or -1, waiting, paused, needs refill (0/1 each), {id, fence, crashes, meta}, ...}.
local worker, limit, quarantine = ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local known_epoch, rows, new_server = ARGV[6], ARGV[7], ARGV[8] == '1'
local pause_ms = tonumber(ARGV[9])
local REFILL_POLL = 100  -- ms until a worker asks again

local function acknowledge(id, fence, outcome, delay)
  local text = redis.call('HGET', meta, id)
  if not text then return end
  local priority, sequence, crashes, _, partition = unpack_meta(text)
  if redis.call('HGET', locks, partition) ~= fence then return end
  if outcome == 'release' then
    put_back(id, text, false)
    return
  end
  unlock(id, partition)
  local was_canceled = redis.call('HDEL', cancels, id) == 1
  if not run_again(id, partition) then
    if outcome == 'retry' and not was_canceled then
      if delay > 0 then
        add_delayed(id, priority, sequence, crashes, partition, delay)
      else
        add_pending(id, priority, sequence, crashes, partition)
      end
    else
      forget(id)
      if outcome == 'dead' then
        redis.call('ZADD', dead, now, id)
        redis.call('ZREMRANGEBYRANK', dead, 0, -(DEAD_KEPT + 1))
      end
      redis.call('PUBLISH', channel .. ':finished:' .. id, id)
    end
  end
  offer(partition)
end

for i = 10, #ARGV, 4 do
  acknowledge(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]))
end

local epoch = epoch_after_loss(known_epoch, rows, new_server, pause_ms)
if needs_refill() then return {epoch, REFILL_POLL, 0, 1, 1} end
local pause = pause_left()
if pause > 0 then return {epoch, pause, 0, 1, 0} end

promote_due()
local ring = quarantine and suspects or ready
local reply = {epoch, -1, 0, 0, 0}
if limit > 0 then
  local turns = redis.call('ZPOPMIN', ring, limit)
  local fence = math.max(tonumber(redis.call('HGET', counters, 'fence') or 0), now_us)
  for i = 1, #turns, 2 do
    local partition = turns[i]
    local head, text = head_of(partition)
    if head then
      local id = string.sub(head, -ID)
      local priority, sequence, crashes = unpack_meta(text)
      local ticket = pack(priority, sequence, crashes, worker, partition)
      fence = fence + 1
      redis.call('ZREM', pending, head)
      redis.call('HSET', locks, partition, int(fence))
      redis.call('ZADD', leases, now + lease_ms, id)
      redis.call('HSET', meta, id, ticket)
      reply[#reply + 1] = {id, int(fence), crashes, ticket}
    end
  end
  redis.call('HSET', counters, 'fence', int(fence))
end

local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if first[2] then reply[2] = math.max(0, tonumber(first[2]) - now) end
if redis.call('ZCARD', ring) > 0 then reply[3] = 1 end
-- What this worker leaves, another one may take.
if redis.call('ZCARD', ready) > 0 then wake_one() end
return reply
