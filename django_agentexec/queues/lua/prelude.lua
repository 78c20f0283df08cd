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

-- Returns a partition's first pending member and its meta, or nil.
local function head_of(partition)
  local from, to = '[' .. partition .. '\0', '(' .. partition .. '\1'
  while true do
    local head = redis.call('ZRANGEBYLEX', pending, from, to, 'LIMIT', 0, 1)[1]
    if not head then return nil end
    local text = redis.call('HGET', meta, string.sub(head, -ID))
    if text then return head, text end
    -- Only keys that somebody else changed or evicted come here: an entry that nobody knows must not
    -- block its queue. Its row brings it back.
    redis.call('ZREM', pending, head)
  end
end

-- Puts a partition where the invariant wants it. A partition that already stands in its ring keeps its
-- turn, unless its new head has a higher priority (ZADD LT).
local function offer(partition)
  if redis.call('HEXISTS', locks, partition) == 1 then return end
  local head, text = head_of(partition)
  if not head then
    redis.call('ZREM', ready, partition)
    redis.call('ZREM', suspects, partition)
    return
  end
  local _, _, crashes = unpack_meta(text)
  local ring, other = ready, suspects
  if crashes ~= '0' then ring, other = suspects, ready end
  redis.call('ZREM', other, partition)
  local turn = redis.call('HINCRBY', counters, 'turn', 1)
  local priority = tonumber(string.sub(head, -TAIL, -TAIL))
  redis.call('ZADD', ring, 'LT', priority * PRIORITY_WEIGHT + turn, partition)
end

local function wake_one()
  if redis.call('LLEN', wake) == 0 then redis.call('LPUSH', wake, '1') end
end

local function add_pending(id, priority, sequence, crashes, partition)
  redis.call('HSET', meta, id, pack(priority, sequence, crashes, '-', partition))
  redis.call('ZADD', pending, 0, member(partition, priority, sequence, id))
  offer(partition)
end

local function add_delayed(id, priority, sequence, crashes, partition, delay)
  redis.call('HSET', meta, id, pack(priority, sequence, crashes, '-', partition))
  redis.call('ZADD', delayed, now + delay, id)
end

local function forget(id)
  redis.call('HDEL', meta, id)
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
    add_pending(id, priority, sequence, crashes, partition)
  else
    add_delayed(id, priority, sequence, crashes, partition, tonumber(delay))
  end
  return true
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
      forget(id)
    else
      if crashed then crashes = int(tonumber(crashes) + 1) end
      add_pending(id, priority, sequence, crashes, partition)
    end
  end
  offer(partition)
end

local function promote_due()
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, BATCH)
  for _, id in ipairs(due) do
    redis.call('ZREM', delayed, id)
    local text = redis.call('HGET', meta, id)
    if text then
      local priority, sequence, crashes, _, partition = unpack_meta(text)
      add_pending(id, priority, sequence, crashes, partition)
    end
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

-- Returns the data's epoch, which is lost with the data. Whoever finds that its epoch is gone, or that the server
-- has been restarted, and knows that there was work (`rows`: none, waiting, running), orders a pause for the claims
-- that were out, and a refill for what was waiting: what comes later must not overtake it.
local function epoch_after_loss(known, rows, new_server, pause_ms)
  local epoch = redis.call('HGET', counters, 'epoch')
  local lost_claims, lost_work = false, false
  if not epoch then
    epoch = int(now_us)
    redis.call('HSET', counters, 'epoch', epoch)
    lost_claims = known ~= '' or rows == 'running'
    lost_work = lost_claims or rows == 'waiting'
  elseif known ~= '' and known ~= epoch then
    lost_claims = redis.call('HEXISTS', counters, 'pause_until') == 0
    lost_work = lost_claims
  elseif new_server then
    -- A restart with its data on disk may have lost the last second of it.
    lost_claims = rows == 'running' or redis.call('ZCARD', leases) > 0
    lost_work = true
  end
  if lost_claims then redis.call('HSET', counters, 'pause_until', int(now + pause_ms)) end
  if lost_work then
    redis.call('HSET', counters, 'refill_until', int(now + LONGEST_REFILL), 'refill', int(now_us))
  end
  return epoch
end

local function needs_refill()
  return tonumber(redis.call('HGET', counters, 'refill_until') or 0) > now
end

-- Milliseconds left of a pause after a loss of data, in which live workers restore their claims.
local function pause_left()
  local ends = tonumber(redis.call('HGET', counters, 'pause_until') or 0)
  return math.max(0, ends - now)
end
