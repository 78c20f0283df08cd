-- Shared by all scripts of a queue: its keys, its clock, and the moves between its places.
--
-- Places of an activity id: `pending` (waits in its partition), `delayed` (waits until it is due), `leases`
-- (claimed). `meta` describes each id in any place. A partition is in `ready` or `suspects` if and only if
-- it has pending work and no lock; in `suspects` if its head crashed a process or has an expired lease, else in
-- `ready`.
--
-- Kinds of partitions, by the beginning of their names:
--   "i:" and an id                       one activity without a lock key
--   "k:" and a lock key                  its activities run one at a time
--   "f:", a fair key, and limits         shared: any number of its activities run at a time, in turns with others
--   "c:", an id, and a shared partition  one activity of it that is claimed or suspect, with a separate lock
-- Thus each lease has one lock, which earlier releases demand; they run the activities of a shared partition one at a
-- time, and ignore limits. `limits.lua` describes limits and parked partitions.
--
-- `by_worker` is an index of `leases` by worker. Releases before 0.2 do not write it, so it may lack their leases and
-- contain entries of leases that they have ended. `expired_leases` holds, per activity, the claims whose lease expired
-- although no pool reported the death of their worker: the number of refunded claims, then the fences of the others.
local pending, ready, suspects, locks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local leases, meta, delayed, dead = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local cancels, again, counters, wake = KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local by_worker, expired_leases = KEYS[13], KEYS[14]
local overrides, slots, parked, starts, resumes = KEYS[15], KEYS[16], KEYS[17], KEYS[18], KEYS[19]
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

-- Returns priority, sequence, crashes, worker, partition, and a suffix of the worker: the limits of an activity with a
-- lock key, or the turn that an activity of a shared partition without a fair key got when it was enqueued.
local function unpack_meta(text)
  local priority, sequence, crashes, worker, suffix, partition =
    string.match(text, '^(%d) (%x+) (%d+) ([^ \31]+)(%S*) (.*)$')
  return priority, sequence, crashes, worker, partition, suffix
end

local function member(partition, priority, sequence, id)
  return partition .. '\0' .. priority .. sequence .. id
end

-- An activity without a lock key has its own partition, recognized by its name: "i:" and the id.
local function is_own(partition)
  return #partition == ID + 2 and string.sub(partition, 1, 2) == 'i:'
end

local function is_shared(partition) return string.sub(partition, 1, 2) == 'f:' end
local function is_single(partition) return string.sub(partition, 1, 2) == 'c:' end
local function single_of(id, shared) return 'c:' .. id .. shared end

-- Returns the partition in which an activity waits after its claim.
local function home_of(partition) return is_single(partition) and string.sub(partition, ID + 3) or partition end

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

-- Returns the partitions of these ids ('' for an unknown id), the fences of their locks (false without a lock), the
-- workers that hold them, and the suffixes of these.
local function locks_of(ids)
  local partitions, workers, suffixes = {}, {}, {}
  for n, text in ipairs(values_of(meta, ids)) do
    local _, _, _, worker, partition, suffix = unpack_meta(text or '')
    partitions[n], workers[n], suffixes[n] = partition or '', worker or '', suffix or ''
  end
  return partitions, values_of(locks, partitions), workers, suffixes
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
