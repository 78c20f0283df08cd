-- Acknowledges claims, then claims more.
-- ARGV from 3: worker, limit, quarantine (0/1), epoch the worker knows (or ''), active rows (none, waiting,
-- running), pause (ms), number of claims that are done, then id, fence of each of these, then id, fence, outcome,
-- delay (ms) of every other acknowledgment.
-- Returns {epoch, ms until next due or -1, waiting, paused, needs refill (0/1 each), id, fence, crashes, meta, ...}.
local worker, limit, quarantine = ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local known_epoch, rows, pause_ms = ARGV[6], ARGV[7], tonumber(ARGV[8])
local FIRST_DONE = 10
local first_other = FIRST_DONE + 2 * tonumber(ARGV[9])
local REFILL_POLL = 100  -- ms until a worker asks again

local function announce_end(id) redis.call('PUBLISH', channel .. ':finished:' .. id, id) end

-- An end that may leave something to do: of a retry, a release, a failure.
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
        add_pending({{id, priority, sequence, crashes, partition}})
      end
    else
      redis.call('HDEL', meta, id)
      if outcome == 'dead' then
        redis.call('ZADD', dead, now, id)
        redis.call('ZREMRANGEBYRANK', dead, 0, -(DEAD_KEPT + 1))
      end
      announce_end(id)
    end
  end
  offer({partition})
end

-- The usual end, of many at once.
local function acknowledge_done()
  local ids, ended, freed, left = {}, {}, {}, {}
  for i = FIRST_DONE, first_other - 1, 2 do ids[#ids + 1] = ARGV[i] end
  local partitions, fences = locks_of(ids)
  for n, fence in ipairs(fences) do
    if fence == ARGV[FIRST_DONE + 2 * n - 1] then
      ended[#ended + 1], freed[#freed + 1] = ids[n], partitions[n]
      -- One of its own is empty now.
      if not is_own(partitions[n]) then left[#left + 1] = partitions[n] end
    end
  end
  call_with('ZREM', leases, ended)
  call_with('HDEL', locks, freed)
  call_with('HDEL', meta, ended)
  call_with('HDEL', cancels, ended)
  for _, id in ipairs(ended) do announce_end(id) end
  offer(left)
end

for i = first_other, #ARGV, 4 do
  acknowledge(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]))
end
if first_other == FIRST_DONE then
  -- Nothing is done.
elseif redis.call('HLEN', again) == 0 then
  acknowledge_done()
else
  for i = FIRST_DONE, first_other - 1, 2 do acknowledge(ARGV[i], ARGV[i + 1], 'done', 0) end
end

notice_loss(known_epoch, rows, pause_ms)
if needs_refill() then return {state.epoch, REFILL_POLL, 0, 1, 1} end
local pause = pause_left()
if pause > 0 then return {state.epoch, pause, 0, 1, 0} end

local next_due = promote_due()
local ring = quarantine and suspects or ready
local reply = {state.epoch, next_due, 0, 0, 0}

local function claim_first(turns)
  local ids, heads = {}, {}
  for i = 1, #turns, 2 do
    local n, partition = (i + 1) / 2, turns[i]
    if is_own(partition) then
      ids[n] = string.sub(partition, 3)
    else
      heads[n] = first_pending(partition)
      ids[n] = heads[n] and string.sub(heads[n], -ID) or ''
    end
  end
  local fence = math.max(tonumber(redis.call('HGET', counters, 'fence') or 0), now_us)
  local taken, locked, leased, tickets = {}, {}, {}, {}
  for n, text in ipairs(values_of(meta, ids)) do
    local partition, head = turns[2 * n - 1], heads[n]
    if not text then head, text = head_of(partition) end
    if text then
      local priority, sequence, crashes = unpack_meta(text)
      head = head or member(partition, priority, sequence, ids[n])
      local id, ticket = string.sub(head, -ID), pack(priority, sequence, crashes, worker, partition)
      fence = fence + 1
      local number = int(fence)
      taken[#taken + 1] = head
      locked[#locked + 1], locked[#locked + 2] = partition, number
      leased[#leased + 1], leased[#leased + 2] = now + lease_ms, id
      tickets[#tickets + 1], tickets[#tickets + 2] = id, ticket
      local at = #reply
      reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = id, number, crashes, ticket
    end
  end
  call_with('ZREM', pending, taken)
  call_with('HSET', locks, locked)
  call_with('ZADD', leases, leased)
  call_with('HSET', meta, tickets)
  redis.call('HSET', counters, 'fence', int(fence))
end

if limit > 0 then
  local turns = redis.call('ZPOPMIN', ring, limit)
  if #turns > 0 then claim_first(turns) end
end

local is_waiting = redis.call('ZCARD', ready) > 0
-- What this worker leaves, another one may take.
if is_waiting then wake_one() end
if quarantine then is_waiting = redis.call('ZCARD', suspects) > 0 end
if is_waiting then reply[3] = 1 end
return reply
