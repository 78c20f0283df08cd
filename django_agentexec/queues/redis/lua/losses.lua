-- Losses of data, shared by all scripts: their detection, and the pause and the recovery after them.

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
  redis.call('DEL', slots, parked, resumes)
  redis.call('HDEL', counters, 'epoch', 'pause_until', 'refill_until', 'refill')
end

-- Reads the state of the queue's data: its epoch, which is lost with the data, whether the current server process has
-- held the data all the time, and until when claims are paused after a loss; further whether slots or parked partitions
-- may exist, the revision of the limits of rows, if there are any, and whether the queue is paused.
--
-- `server` is the run id of the server process that the worker stored when its connection was opened; a connection
-- ends with that process. If it matches the stored run id, INFO is not needed. Heartbeats always read INFO, since a
-- proxy may keep connections open while it replaces the server behind them.
local state = {}
local function read_state(server)
  local found = redis.call('HMGET', counters, 'epoch', 'pause_until', 'refill_until', 'server', 'limited', 'limits', 'closed')
  state.epoch, state.pause_until, state.refill_until = found[1], tonumber(found[2]), tonumber(found[3])
  state.server, state.limited, state.revision, state.closed = found[4], found[5], found[6], found[7]
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
