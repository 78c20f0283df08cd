-- Shared by all scripts of a queue: its keys, its clock, and the moves between its places.
--
-- Places of an activity id: `pending` (waits in its partition), `delayed` (waits until it is due), `leases`
-- (claimed). `meta` describes each id in any place. A partition is in `ready` or `suspects` if and only if
-- it has pending work and no lock; in `suspects` if its head crashed a process or has an expired lease, else in
-- `ready`.
--
-- `by_worker` is an index of `leases` by worker. Releases before 0.2 do not write it, so it may lack their leases and
-- contain entries of leases that they have ended. `expired_leases` holds, per activity, the claims whose lease expired
-- although no pool reported the death of their worker: the number of refunded claims, then the fences of the others.
local pending, ready, suspects, locks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local leases, meta, delayed, dead = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local cancels, again, counters, wake = KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local by_worker, expired_leases = KEYS[13], KEYS[14]
local lease_ms, channel = tonumber(ARGV[1]), ARGV[2]

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now = math.floor(now_us / 1000)

-- Turn numbers stay far below the weight of one priority; nine weights stay below 2^53.
local PRIORITY_WEIGHT = 1e14
local MAX_BATCH = 100    -- due or expired activities moved by one call
local MAX_DEAD = 10000   -- ids kept among the dead letters
local MAX_RECOVERY_MS = 30000  -- a queue that no pool restores within this time resumes as it is
local TAIL = 53          -- length of a pending member after its NUL: priority 1, sequence 16, id 36
local ID = 36
local REFUNDS_PER_EXPIRED_LEASE = 4  -- refunded expired leases that count as one, which bounds the repetitions
local MIXED_FOR = 600000  -- ms after a heartbeat of an earlier release during which the index may be incomplete
local MAX_ARGUMENTS = 4000  -- of one command; Lua's stack holds 8,000 (LUAI_MAXCSTACK)

-- Lua's default conversion keeps only 14 digits.
local function int(number) return string.format('%.0f', number) end

local function pack(priority, sequence, crashes, worker, partition)
  return priority .. ' ' .. sequence .. ' ' .. crashes .. ' ' .. worker .. ' ' .. partition
end

local function unpack_meta(text)
  return string.match(text, '^(%d) (%x+) (%d+) (%S+) (.*)$')
end

local function member(partition, priority, sequence, id)
  return partition .. '\0' .. priority .. sequence .. id
end

-- An activity without a lock key has its own partition, recognized by its name: "i:" and the id.
local function is_own(partition)
  return #partition == ID + 2 and string.sub(partition, 1, 2) == 'i:'
end

-- Runs a command with any number of arguments in few calls; pairs stay together, since the limit is even.
local function call_with(command, key, arguments, option)
  for from = 1, #arguments, MAX_ARGUMENTS do
    local to = math.min(from + MAX_ARGUMENTS - 1, #arguments)
    if option then
      redis.call(command, key, option, unpack(arguments, from, to))
    else
      redis.call(command, key, unpack(arguments, from, to))
    end
  end
end

-- Returns the values of these fields of a hash; false for a missing field.
local function values_of(hash, fields)
  if #fields <= MAX_ARGUMENTS then
    return #fields > 0 and redis.call('HMGET', hash, unpack(fields)) or {}
  end
  local found = {}
  for from = 1, #fields, MAX_ARGUMENTS do
    local to = math.min(from + MAX_ARGUMENTS - 1, #fields)
    for _, value in ipairs(redis.call('HMGET', hash, unpack(fields, from, to))) do found[#found + 1] = value end
  end
  return found
end

-- Returns the partitions of these ids ('' for an unknown id), the fences of their locks (false without a lock), and
-- the workers that hold them.
local function locks_of(ids)
  local partitions, workers = {}, {}
  for n, text in ipairs(values_of(meta, ids)) do
    local _, _, _, worker, partition = unpack_meta(text or '')
    partitions[n], workers[n] = partition or '', worker or ''
  end
  return partitions, values_of(locks, partitions), workers
end

-- Returns the entry of a lease in the index by worker.
local function entry_of(worker, id) return worker .. '\0' .. id end

-- Returns the number of refunded expired leases of an activity and the fences of the others. Most activities have none.
local may_have_expired_leases
local function expired_leases_of(id)
  if may_have_expired_leases == nil then may_have_expired_leases = redis.call('EXISTS', expired_leases) == 1 end
  local text = may_have_expired_leases and redis.call('HGET', expired_leases, id)
  if not text then return 0, {} end
  local fences = {}
  for fence in string.gmatch(text, ' (%d+)') do fences[#fences + 1] = fence end
  return tonumber(string.match(text, '^%d+')), fences
end

local function set_expired_leases(id, refunded, fences)
  may_have_expired_leases = true
  redis.call('HSET', expired_leases, id, table.concat({int(refunded), unpack(fences)}, ' '))
end

local function forget_expired_leases(ids)
  if may_have_expired_leases == nil then may_have_expired_leases = redis.call('EXISTS', expired_leases) == 1 end
  if may_have_expired_leases then call_with('HDEL', expired_leases, ids) end
end

-- Returns the number of expired leases that count against the limit of an activity.
local function count_expired_leases(id)
  local refunded, fences = expired_leases_of(id)
  return math.max(#fences, math.floor((refunded + #fences) / REFUNDS_PER_EXPIRED_LEASE))
end

local function is_suspect(id, crashes)
  if crashes ~= '0' then return true end
  local _, fences = expired_leases_of(id)
  return #fences > 0
end

-- Returns the first pending member of a partition (from this priority on), or nil.
local function first_pending(partition, priority)
  local from = '[' .. partition .. '\0' .. (priority or '')
  return redis.call('ZRANGEBYLEX', pending, from, '(' .. partition .. '\1', 'LIMIT', 0, 1)[1]
end

-- Returns the first pending member of a partition and its meta, or nil.
local function head_of(partition)
  while true do
    local head = first_pending(partition)
    if not head then return nil end
    local text = redis.call('HGET', meta, string.sub(head, -ID))
    if text then return head, text end
    -- Reached only if keys were changed by hand or evicted: an entry without meta must not block its queue. The
    -- reconciler pushes the activity again.
    redis.call('ZREM', pending, head)
  end
end

-- Adds partitions to a ring: {score, partition, ...}. A partition that is already in the ring keeps its turn, unless
-- its new head has a higher priority (ZADD LT). It is removed from the other ring.
local function add_to_ring(ring, other, turns)
  if #turns == 0 then return end
  if redis.call('ZCARD', other) > 0 then
    for i = 2, #turns, 2 do redis.call('ZREM', other, turns[i]) end
  end
  call_with('ZADD', ring, turns, 'LT')
end

-- Places distinct partitions in the ring that the invariant demands; turns are assigned in this order. `heads` holds
-- {priority, is_suspect} of partitions whose head the caller knows. They are not locked.
local function offer(partitions, heads)
  local offers, idle = {}, {}
  for _, partition in ipairs(partitions) do
    local known = heads and heads[partition]
    if known then
      offers[#offers + 1] = {partition, known[1], known[2]}
    elseif redis.call('HEXISTS', locks, partition) == 0 then
      local head, text = head_of(partition)
      if head then
        local _, _, crashes = unpack_meta(text)
        offers[#offers + 1] = {
          partition, string.sub(head, -TAIL, -TAIL), is_suspect(string.sub(head, -ID), crashes),
        }
      else
        idle[#idle + 1] = partition
      end
    end
  end
  call_with('ZREM', ready, idle)
  call_with('ZREM', suspects, idle)
  if #offers == 0 then return end
  local turn = redis.call('HINCRBY', counters, 'turn', #offers) - #offers
  local of_ready, of_suspects = {}, {}
  for n, offered in ipairs(offers) do
    local turns = offered[3] and of_suspects or of_ready
    turns[#turns + 1], turns[#turns + 2] = tonumber(offered[2]) * PRIORITY_WEIGHT + turn + n, offered[1]
  end
  add_to_ring(ready, suspects, of_ready)
  add_to_ring(suspects, ready, of_suspects)
end

local function wake_one()
  if redis.call('LLEN', wake) == 0 then redis.call('LPUSH', wake, '1') end
end

-- Adds unclaimed activities to their partitions: {id, priority, sequence, crashes, partition} each.
local function add_pending(entries)
  local texts, members, partitions, heads, seen = {}, {}, {}, {}, {}
  for _, entry in ipairs(entries) do
    local id, priority, sequence, crashes, partition = unpack(entry)
    texts[#texts + 1], texts[#texts + 2] = id, pack(priority, sequence, crashes, '-', partition)
    members[#members + 1], members[#members + 2] = 0, member(partition, priority, sequence, id)
    if not seen[partition] then
      seen[partition] = true
      partitions[#partitions + 1] = partition
      if is_own(partition) then heads[partition] = {priority, is_suspect(id, crashes)} end
    end
  end
  call_with('HSET', meta, texts)
  call_with('ZADD', pending, members)
  offer(partitions, heads)
end

local function add_delayed(id, priority, sequence, crashes, partition, delay)
  redis.call('HSET', meta, id, pack(priority, sequence, crashes, '-', partition))
  redis.call('ZADD', delayed, now + delay, id)
end

-- Ends a lease and frees its partition; the caller moves the id to its next place, then offers the partition.
local function unlock(id, partition, worker)
  redis.call('ZREM', leases, id)
  redis.call('ZREM', by_worker, entry_of(worker, id))
  redis.call('HDEL', locks, partition)
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
local function run_again(id, partition)
  local retry = redis.call('HGET', again, id)
  if not retry then return false end
  redis.call('HDEL', again, id)
  forget_expired_leases({id})
  local priority, sequence, crashes, delay = string.match(retry, '^(%d) (%x+) (%d+) (%d+)$')
  if delay == '0' then
    add_pending({{id, priority, sequence, crashes, partition}})
  else
    add_delayed(id, priority, sequence, crashes, partition, tonumber(delay))
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

-- Ends a lease whose holder did not finish: the activity returns to its former place in its partition.
-- `charge`: 'crash' if its worker is known to have died, 'expired_lease' if the lease has expired, else nil.
local function put_back(id, text, charge)
  if not text then
    redis.call('ZREM', leases, id)
    return
  end
  local priority, sequence, crashes, worker, partition = unpack_meta(text)
  local fence = charge == 'expired_lease' and redis.call('HGET', locks, partition)
  unlock(id, partition, worker)
  local was_canceled = redis.call('HDEL', cancels, id) == 1
  if not run_again(id, partition) then
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
      add_pending({{id, priority, front_of(partition, priority, sequence, id), crashes, partition}})
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
        local priority, sequence, crashes, _, partition = unpack_meta(text)
        entries[#entries + 1] = {due[n], priority, sequence, crashes, partition}
      end
    end
    add_pending(entries)
    if #due == MAX_BATCH then return 0 end
  end
end

-- Returns whether a required key is missing: evicted by a full server, or deleted by hand. Each id is in exactly one
-- place and has meta; each lease has a lock; each partition with pending work and without a lock has a turn.
local function has_lost_keys()
  local ids, waiting, claimed = redis.call('HLEN', meta), redis.call('ZCARD', pending), redis.call('ZCARD', leases)
  local locked = redis.call('HLEN', locks)
  if ids ~= waiting + claimed + redis.call('ZCARD', delayed) or locked ~= claimed then return true end
  local turns = redis.call('ZCARD', ready) + redis.call('ZCARD', suspects)
  if turns > 0 or waiting == 0 then return turns > waiting end
  -- Without turns, all pending activities must wait behind locks; there is one lock per running activity.
  local from = '-'
  for _ = 0, locked do
    local next_member = redis.call('ZRANGEBYLEX', pending, from, '+', 'LIMIT', 0, 1)[1]
    if not next_member then return false end
    local partition = string.sub(next_member, 1, -(TAIL + 2))
    if redis.call('HEXISTS', locks, partition) == 0 then return true end
    from = '(' .. partition .. '\1'
  end
  return true
end

-- Deletes all places: incomplete data cannot be repaired, but an empty queue is restored from claims and rows.
local function delete_places()
  redis.call('DEL', pending, ready, suspects, locks, leases, meta, delayed, cancels, again, by_worker, expired_leases)
  redis.call('HDEL', counters, 'epoch', 'pause_until', 'refill_until', 'refill')
end

-- Reads the state of the queue's data: its epoch, which is lost with the data, whether the current server process has
-- held the data all the time, and until when claims are paused after a loss.
--
-- `server` is the run id of the server process that the worker stored when its connection was opened; a connection
-- ends with that process. If it matches the stored run id, INFO is not needed. Heartbeats always read INFO, since a
-- proxy may keep connections open while it replaces the server behind them.
local state = {}
local function read_state(server)
  local found = redis.call('HMGET', counters, 'epoch', 'pause_until', 'refill_until', 'server')
  state.epoch, state.pause_until, state.refill_until = found[1], tonumber(found[2]), tonumber(found[3])
  state.server = found[4]
  if not server or server ~= found[4] then
    state.server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
  end
  state.is_new_server = found[4] ~= state.server
end

-- Detects a loss of data: the epoch of a worker (`known`) is missing, or the server process is not the same (restart,
-- failover). If there was work (`rows`: none, waiting, running), it starts a pause in which workers restore their
-- claims, and requires a recovery of waiting activities, so that later activities do not overtake them. Sets `state`.
local function detect_loss(known, rows, pause_ms, server)
  read_state(server)
  local lost_claims, lost_work = false, false
  if state.is_new_server or not state.epoch then
    -- A server restarted from disk, or a replica, may lack the last second of its data, or hours: its leases and its
    -- pause may be outdated. A worker that has seen the former epoch does not know the claims of other workers.
    lost_claims = known ~= '' or rows == 'running' or redis.call('ZCARD', leases) > 0
    lost_work = lost_claims or rows == 'waiting' or state.epoch ~= false
    -- With a new epoch, the next worker that has seen the former epoch starts the pause if this worker did not.
    state.epoch = int(now_us)
    redis.call('HSET', counters, 'epoch', state.epoch, 'server', state.server)
    if (state.pause_until or 0) <= now then
      state.pause_until = nil
      redis.call('HDEL', counters, 'pause_until')
    end
  elseif known ~= '' and known ~= state.epoch then
    lost_claims = not state.pause_until
    lost_work = lost_claims
  end
  if lost_claims then
    state.pause_until = now + pause_ms
    redis.call('HSET', counters, 'pause_until', int(state.pause_until))
  end
  if lost_work then
    state.refill_until = now + MAX_RECOVERY_MS
    redis.call('HSET', counters, 'refill_until', int(state.refill_until), 'refill', int(now_us))
  end
end

-- Returns whether the queue waits until it is restored from the rows.
local function needs_recovery()
  return (state.refill_until or 0) > now
end

-- Returns the milliseconds left of the pause after a loss of data, in which live workers restore their claims.
local function pause_left()
  return math.max(0, (state.pause_until or 0) - now)
end
