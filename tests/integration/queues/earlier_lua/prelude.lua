-- Shared by every script of a queue: its keys, its clock, and the moves between its places.
--
-- Places of an activity id: `pending` (waits in its partition), `delayed` (waits for its time), `leases`
-- (claimed). `meta` tells of each id in any place. A partition is in `ready` or `suspects` if and only if
-- it has pending work and no lock; in `suspects` if its head has crashed a process, else in `ready`.
local pending, ready, suspects, locks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local leases, meta, delayed, dead = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local cancels, again, counters, wake = KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local lease_ms, channel = tonumber(ARGV[1]), ARGV[2]

local clock = redis.call('TIME')
local now_us = clock[1] * 1000000 + clock[2]
local now = math.floor(now_us / 1000)

-- A turn of the ring stays far below the weight of one priority; nine weights stay below 2^53.
local PRIORITY_WEIGHT = 1e14
local BATCH = 100        -- due or expired activities moved by one call
local DEAD_KEPT = 10000  -- ids kept among the dead letters
local LONGEST_REFILL = 30000  -- ms; after them a queue whose pool does not refill it goes on as it is
local TAIL = 53          -- length of a pending member after its NUL: priority 1, sequence 16, id 36
local ID = 36
local MOST_ARGUMENTS = 4000  -- of one command; Lua's stack holds 8,000 (LUAI_MAXCSTACK)

-- Lua's own conversion keeps 14 digits only.
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

-- An activity without a lock key is a partition of its own, which is known by its name: "i:" and the id.
local function is_own(partition)
  return #partition == ID + 2 and string.sub(partition, 1, 2) == 'i:'
end

-- Runs a command with any number of arguments (pairs stay together), since each call costs more than its work.
local function call_with(command, key, arguments, option)
  for from = 1, #arguments, MOST_ARGUMENTS do
    local to = math.min(from + MOST_ARGUMENTS - 1, #arguments)
    if option then
      redis.call(command, key, option, unpack(arguments, from, to))
    else
      redis.call(command, key, unpack(arguments, from, to))
    end
  end
end

-- Returns the values of these fields of a hash, false where there is none.
local function values_of(hash, fields)
  if #fields <= MOST_ARGUMENTS then
    return #fields > 0 and redis.call('HMGET', hash, unpack(fields)) or {}
  end
  local found = {}
  for from = 1, #fields, MOST_ARGUMENTS do
    local to = math.min(from + MOST_ARGUMENTS - 1, #fields)
    for _, value in ipairs(redis.call('HMGET', hash, unpack(fields, from, to))) do found[#found + 1] = value end
  end
  return found
end

-- Returns the partitions of these ids ('' of one that is not here), and the fences by which they are locked, or false.
local function locks_of(ids)
  local partitions = {}
  for n, text in ipairs(values_of(meta, ids)) do
    local _, _, _, _, partition = unpack_meta(text or '')
    partitions[n] = partition or ''
  end
  return partitions, values_of(locks, partitions)
end

-- Returns a partition's first pending member (from this priority on), or nil.
local function first_pending(partition, priority)
  local from = '[' .. partition .. '\0' .. (priority or '')
  return redis.call('ZRANGEBYLEX', pending, from, '(' .. partition .. '\1', 'LIMIT', 0, 1)[1]
end

-- Returns a partition's first pending member and its meta, or nil.
local function head_of(partition)
  while true do
    local head = first_pending(partition)
    if not head then return nil end
    local text = redis.call('HGET', meta, string.sub(head, -ID))
    if text then return head, text end
    -- Only keys that somebody else changed or evicted come here: an entry that nobody knows must not
    -- block its queue. Its row brings it back.
    redis.call('ZREM', pending, head)
  end
end

-- Adds partitions to a ring: {score, partition, ...}. One that already stands in it keeps its turn, unless its new
-- head has a higher priority (ZADD LT); in the other ring it stands no more.
local function add_to_ring(ring, other, turns)
  if #turns == 0 then return end
  if redis.call('ZCARD', other) > 0 then
    for i = 2, #turns, 2 do redis.call('ZREM', other, turns[i]) end
  end
  call_with('ZADD', ring, turns, 'LT')
end

-- Puts partitions, each named once, where the invariant wants them; turns are given in this order. `heads` tells of
-- those whose head the caller knows: {priority, crashes}. They are not locked.
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
        offers[#offers + 1] = {partition, string.sub(head, -TAIL, -TAIL), crashes}
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
    local turns = offered[3] == '0' and of_ready or of_suspects
    turns[#turns + 1], turns[#turns + 2] = tonumber(offered[2]) * PRIORITY_WEIGHT + turn + n, offered[1]
  end
  add_to_ring(ready, suspects, of_ready)
  add_to_ring(suspects, ready, of_suspects)
end

local function wake_one()
  if redis.call('LLEN', wake) == 0 then redis.call('LPUSH', wake, '1') end
end

-- Lets activities wait in their partitions: {id, priority, sequence, crashes, partition} each. They are not claimed.
local function add_pending(entries)
  local texts, members, partitions, heads, named = {}, {}, {}, {}, {}
  for _, entry in ipairs(entries) do
    local id, priority, sequence, crashes, partition = unpack(entry)
    texts[#texts + 1], texts[#texts + 2] = id, pack(priority, sequence, crashes, '-', partition)
    members[#members + 1], members[#members + 2] = 0, member(partition, priority, sequence, id)
    if not named[partition] then
      named[partition] = true
      partitions[#partitions + 1] = partition
      if is_own(partition) then heads[partition] = {priority, crashes} end
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

-- Ends a lease and frees its partition; the caller says where the id goes, then offers the partition.
local function unlock(id, partition)
  redis.call('ZREM', leases, id)
  redis.call('HDEL', locks, partition)
end

-- A manual retry that came while the activity was being run (canceled, but not yet stopped): run it anew.
local function run_again(id, partition)
  local wish = redis.call('HGET', again, id)
  if not wish then return false end
  redis.call('HDEL', again, id)
  local priority, sequence, crashes, delay = string.match(wish, '^(%d) (%x+) (%d+) (%d+)$')
  if delay == '0' then
    add_pending({{id, priority, sequence, crashes, partition}})
  else
    add_delayed(id, priority, sequence, crashes, partition, tonumber(delay))
  end
  return true
end

-- Returns a sequence by which an activity stands before all others of its partition and priority. It had been the
-- first of them when it was claimed; after a loss of data the others may have come back with other numbers.
local function front_of(partition, priority, sequence, id)
  local first = not is_own(partition) and first_pending(partition, priority)
  if not first or string.sub(first, -TAIL, -TAIL) ~= priority then return sequence end
  if member(partition, priority, sequence, id) < first then return sequence end
  return string.format('%016x', math.max(0, tonumber(string.sub(first, -TAIL + 1, -ID - 1), 16) - 1))
end

-- Ends a lease whose holder did not finish: the activity goes back to its old place in its partition.
local function put_back(id, text, crashed)
  if not text then
    redis.call('ZREM', leases, id)
    return
  end
  local priority, sequence, crashes, _, partition = unpack_meta(text)
  unlock(id, partition)
  local was_canceled = redis.call('HDEL', cancels, id) == 1
  if not run_again(id, partition) then
    if was_canceled then
      redis.call('HDEL', meta, id)
    else
      if crashed then crashes = int(tonumber(crashes) + 1) end
      add_pending({{id, priority, front_of(partition, priority, sequence, id), crashes, partition}})
    end
  end
  offer({partition})
end

-- Lets what is due wait in its partition; returns the milliseconds until the next one comes due, or -1.
local function promote_due()
  while true do
    local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
    if not first[2] then return -1 end
    if tonumber(first[2]) > now then return tonumber(first[2]) - now end
    local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, BATCH)
    call_with('ZREM', delayed, due)
    local entries = {}
    for n, text in ipairs(values_of(meta, due)) do
      if text then
        local priority, sequence, crashes, _, partition = unpack_meta(text)
        entries[#entries + 1] = {due[n], priority, sequence, crashes, partition}
      end
    end
    add_pending(entries)
    if #due == BATCH then return 0 end
  end
end

-- Whether a key is gone that must be there: evicted by a full server, or deleted by hand. Each id is in exactly one
-- place and has its meta; each lease has its lock; what is pending and not locked has its turn.
local function has_lost_keys()
  local ids, waiting, claimed = redis.call('HLEN', meta), redis.call('ZCARD', pending), redis.call('ZCARD', leases)
  local locked = redis.call('HLEN', locks)
  if ids ~= waiting + claimed + redis.call('ZCARD', delayed) or locked ~= claimed then return true end
  local turns = redis.call('ZCARD', ready) + redis.call('ZCARD', suspects)
  if turns > 0 or waiting == 0 then return turns > waiting end
  -- No turns: then all that is pending waits behind locks, of which there are as many as running activities.
  local from = '-'
  for _ = 0, locked do
    local next_one = redis.call('ZRANGEBYLEX', pending, from, '+', 'LIMIT', 0, 1)[1]
    if not next_one then return false end
    local partition = string.sub(next_one, 1, -(TAIL + 2))
    if redis.call('HEXISTS', locks, partition) == 0 then return true end
    from = '(' .. partition .. '\1'
  end
  return true
end

-- Half of the truth is worse than none: without it all, the queue is restored from claims and rows.
local function forget_everything()
  redis.call('DEL', pending, ready, suspects, locks, leases, meta, delayed, cancels, again)
  redis.call('HDEL', counters, 'epoch', 'pause_until', 'refill_until', 'refill')
end

-- What the queue knows of its data: its epoch, which is lost with it, whether this server's present process has had it
-- all the time, and until when claims wait after a loss.
local state = {}
local function read_state()
  local found = redis.call('HMGET', counters, 'epoch', 'pause_until', 'refill_until', 'server')
  state.epoch, state.pause_until, state.refill_until = found[1], tonumber(found[2]), tonumber(found[3])
  state.server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
  state.is_new_server = found[4] ~= state.server
end

-- Whoever finds that its epoch is gone, or that the server has been restarted or is another one (failover), and knows
-- that there was work (`rows`: none, waiting, running), orders a pause for the claims that were out, and a refill for
-- what was waiting: what comes later must not overtake it. Reads the state, and leaves it as it is then.
local function notice_loss(known, rows, pause_ms)
  read_state()
  local lost_claims, lost_work = false, false
  if state.is_new_server or not state.epoch then
    -- A restart with its data on disk, or a replica, may have lost the last second of it, or hours: what it tells of
    -- claims, and of a pause that was, says nothing about those of today. Who lived before it cannot know of the
    -- others' claims.
    lost_claims = known ~= '' or rows == 'running' or redis.call('ZCARD', leases) > 0
    lost_work = lost_claims or rows == 'waiting' or state.epoch ~= false
    -- A new epoch lets the next one who lived before order the pause, if this one had no reason to.
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
    state.refill_until = now + LONGEST_REFILL
    redis.call('HSET', counters, 'refill_until', int(state.refill_until), 'refill', int(now_us))
  end
end

local function needs_refill()
  return (state.refill_until or 0) > now
end

-- Milliseconds left of a pause after a loss of data, in which live workers restore their claims.
local function pause_left()
  return math.max(0, (state.pause_until or 0) - now)
end
