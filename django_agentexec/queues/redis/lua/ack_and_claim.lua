-- Acknowledges claims, then claims more.
-- ARGV from 3: worker, limit, quarantine (0/1, or the only id to claim, also from quarantine), epoch the worker knows (or ''), active rows (none, waiting,
-- running), pause (ms), run id of the server that the worker is connected to (or ''), number of claims that are done,
-- then id, fence of each of these, then id, fence, outcome, delay (ms) of every other acknowledgment. The outcome
-- 'hold' is followed by the limits that its activity gets.
-- Returns {epoch, ms until next due or -1, waiting, paused, needs recovery (0/1 each), revision of the limits, then per
-- claim id, fence, crashes, expired leases, meta}.
local worker, limit, quarantine = ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local only = #ARGV[5] == ID and ARGV[5]
local known_epoch, rows, pause_ms = ARGV[6], ARGV[7], tonumber(ARGV[8])
local FIRST_DONE = 11
local first_other = FIRST_DONE + 2 * tonumber(ARGV[10])

local function publish_end(id) redis.call('PUBLISH', channel .. ':finished:' .. id, id) end

-- Acknowledges one claim with any outcome: retry, release, failure, or done.
local function acknowledge(id, fence, outcome, delay)
  local text = redis.call('HGET', meta, id)
  if not text then return end
  local priority, sequence, crashes, holder, partition, suffix = unpack_meta(text)
  if redis.call('HGET', locks, partition) ~= fence then
    refund(id, fence)
    return
  end
  if outcome == 'release' then
    put_back(id, text)
    return
  end
  if string.sub(outcome, 1, 4) == 'hold' then
    put_back(id, text, nil, string.sub(outcome, 5))
    return
  end
  unlock(id, partition, holder, suffix)
  local was_canceled = redis.call('HDEL', cancels, id) == 1
  if not run_again(id, partition, suffix) then
    if outcome == 'retry' and not was_canceled then
      if delay > 0 then
        add_delayed(id, priority, sequence, crashes, partition, delay, suffix)
      else
        add_pending({{id, priority, sequence, crashes, partition, limits_in(suffix)}})
      end
    else
      redis.call('HDEL', meta, id)
      forget_expired_leases({id})
      if outcome == 'dead' then
        redis.call('ZADD', dead, now, id)
        redis.call('ZREMRANGEBYRANK', dead, 0, -(MAX_DEAD + 1))
      end
      publish_end(id)
    end
  end
  offer({partition})
end

-- Acknowledges all claims that are done, the most frequent outcome, with one call per command.
local function acknowledge_done()
  local ids, ended, freed, remaining, entries, limited = {}, {}, {}, {}, {}, {}
  for i = FIRST_DONE, first_other - 1, 2 do ids[#ids + 1] = ARGV[i] end
  local partitions, fences, holders, suffixes = locks_of(ids)
  for n, fence in ipairs(fences) do
    local acknowledged = ARGV[FIRST_DONE + 2 * n - 1]
    if fence ~= acknowledged then
      refund(ids[n], acknowledged)
    else
      ended[#ended + 1], freed[#freed + 1], entries[#entries + 1] = ids[n], partitions[n], entry_of(holders[n], ids[n])
      -- The partition of an activity without a lock key is empty now.
      if not is_own(partitions[n]) then
        if not is_single(partitions[n]) then remaining[#remaining + 1] = partitions[n] end
        local limits = limits_of(partitions[n], suffixes[n])
        if limits then limited[#limited + 1] = {limits, ids[n]} end
      end
    end
  end
  call_with('ZREM', leases, ended)
  call_with('ZREM', by_worker, entries)
  call_with('HDEL', locks, freed)
  call_with('HDEL', meta, ended)
  call_with('HDEL', cancels, ended)
  forget_expired_leases(ended)
  for _, id in ipairs(ended) do publish_end(id) end
  offer(remaining)
  for _, slot in ipairs(limited) do free_slots(slot[1], slot[2]) end
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

detect_loss(known_epoch, rows, pause_ms, ARGV[9])
local revision = state.revision or ''
if needs_recovery() then return {state.epoch, state.refill_until - now, 0, 1, 1, revision} end
local pause = pause_left()
if pause > 0 then return {state.epoch, pause, 0, 1, 0, revision} end

local next_due, next_start = promote_due(), resume_due()
if next_due < 0 or next_start >= 0 and next_start < next_due then next_due = next_start end
local ring = quarantine and suspects or ready
local reply = {state.epoch, next_due, 0, 0, 0, revision}
local parks_left, has_more = MAX_BATCH, false

-- Takes the partition of the only id to claim from its ring, if it is the first there: {partition, score}.
local function pop_turn_of_only()
  local text = redis.call('HGET', meta, only)
  if not text then return {} end
  local _, _, _, _, partition = unpack_meta(text)
  for _, each in ipairs({ready, suspects}) do
    local score = redis.call('ZSCORE', each, partition)
    if score and tonumber(score) < PARKED then
      if not is_own(partition) and string.sub(head_of(partition) or '', -ID) ~= only then return {} end
      redis.call('ZREM', each, partition)
      ring = each
      return {partition, score}
    end
  end
  return {}
end

-- Takes the first partitions, in their order: {partition, score, ...}.
local function pop_turns(count)
  if only then return pop_turn_of_only() end
  if not state.limited then return redis.call('ZPOPMIN', ring, count) end
  local turns = redis.call('ZRANGEBYSCORE', ring, '-inf', '(' .. int(PARKED), 'WITHSCORES', 'LIMIT', 0, count)
  local partitions = {}
  for i = 1, #turns, 2 do partitions[#partitions + 1] = turns[i] end
  call_with('ZREM', ring, partitions)
  return turns
end

-- Occupies the slots of an activity that is claimed now, or parks its partition if a limit is reached.
local function admit(limits, partition, priority, id)
  local key, resumes_at = first_reached(limits)
  if not key then
    take_slots(limits, id)
    pass_on(limits)
    return true
  end
  park(ring, partition, priority, limits, key, resumes_at)
  parks_left, has_more = parks_left - 1, true
  return false
end

-- Claims the first activity of each of these partitions, which are in no ring; returns the number of claims.
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
  local taken, locked, leased, tickets, entries, shared, claimed = {}, {}, {}, {}, {}, {}, 0
  for n, text in ipairs(values_of(meta, ids)) do
    local partition, head = turns[2 * n - 1], heads[n]
    if not text then head, text = head_of(partition) end
    if text then
      local priority, sequence, crashes, _, _, suffix = unpack_meta(text)
      head = head or member(partition, priority, sequence, ids[n])
      local id, limits = string.sub(head, -ID), limits_of(partition, suffix)
      if not limits or admit(limits, partition, priority, id) then
        local lock = partition
        if is_shared(partition) then
          shared[#shared + 1], lock = partition, single_of(id, partition)
        end
        local ticket = pack(priority, sequence, crashes, worker .. suffix, lock)
        fence, claimed = fence + 1, claimed + 1
        local number = int(fence)
        taken[#taken + 1] = head
        locked[#locked + 1], locked[#locked + 2] = lock, number
        leased[#leased + 1], leased[#leased + 2] = now + lease_ms, id
        tickets[#tickets + 1], tickets[#tickets + 2] = id, ticket
        entries[#entries + 1], entries[#entries + 2] = 0, entry_of(worker, id)
        local at = #reply
        reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = id, number, crashes, count_expired_leases(id)
        reply[at + 5] = ticket
      end
    end
  end
  call_with('ZREM', pending, taken)
  call_with('HSET', locks, locked)
  call_with('ZADD', leases, leased)
  call_with('ZADD', by_worker, entries)
  call_with('HSET', meta, tickets)
  redis.call('HSET', counters, 'fence', int(fence))
  if #shared > 0 then
    offer(shared)
    has_more = true
  end
  return claimed
end

if state.closed then return reply end
while limit > 0 and parks_left > 0 do
  local turns = pop_turns(limit)
  if #turns == 0 then break end
  has_more = false
  limit = limit - claim_first(turns)
  if not has_more then break end
end

if only then
  -- What remains is for others, and known to them unless these acknowledgments have made it ready.
  if #ARGV >= FIRST_DONE and turns_of(ready) > 0 then wake_one() end
  return reply
end
local is_waiting = turns_of(ready) > 0
-- Another worker may claim the remaining activities.
if is_waiting then wake_one() end
if quarantine then is_waiting = turns_of(suspects) > 0 end
if is_waiting then reply[3] = 1 end
return reply
