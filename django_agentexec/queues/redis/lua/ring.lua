-- The rings of partitions, shared by all scripts: `ready` and `suspects`. The score of a partition is its turn plus a
-- weight of its priority. A parked partition, whose limit is reached, has a turn after all others: only earlier
-- releases, which ignore limits, and an unpark find it there.
local PARKED = 5e15  -- above all turns of nine priorities, and so far below 2^53 that the sum of both is exact

-- Adds partitions to a ring: {score, partition, ...}. A partition that is already in the ring keeps its turn, unless
-- its new head has a higher priority (ZADD LT). It is removed from the other ring.
local function add_to_ring(ring, other, turns)
  if #turns == 0 then return end
  if redis.call('ZCARD', other) > 0 then
    for i = 2, #turns, 2 do redis.call('ZREM', other, turns[i]) end
  end
  call_with('ZADD', ring, turns, 'LT')
end

local function is_parked(partition)
  return tonumber(redis.call('ZSCORE', ready, partition) or 0) >= PARKED
end

-- Returns the number of partitions of a ring that are not parked.
local function turns_of(ring) return redis.call('ZCOUNT', ring, '-inf', '(' .. int(PARKED)) end

-- Places distinct partitions in the ring that the invariant demands; turns are assigned in this order. `heads` holds
-- {priority, is_suspect} of partitions whose head the caller knows. They are not locked. Returns the number of
-- partitions that have a turn now.
local function offer(partitions, heads)
  local offers, idle = {}, {}
  for _, partition in ipairs(partitions) do
    local known = heads and heads[partition]
    if known then
      offers[#offers + 1] = {partition, known[1], known[2]}
    elseif redis.call('HEXISTS', locks, partition) == 0 then
      local head, text = head_of(partition)
      if not head then
        idle[#idle + 1] = partition
      elseif not (is_shared(partition) and is_parked(partition)) then
        local _, _, crashes, _, _, suffix = unpack_meta(text)
        offers[#offers + 1] = {
          partition, string.sub(head, -TAIL, -TAIL), is_suspect(string.sub(head, -ID), crashes),
          tonumber(string.match(suffix, '^\31(%d+)$')),
        }
      end
    end
  end
  call_with('ZREM', ready, idle)
  call_with('ZREM', suspects, idle)
  if #offers == 0 then return 0 end
  local turn = redis.call('HINCRBY', counters, 'turn', #offers) - #offers
  local of_ready, of_suspects = {}, {}
  for n, offered in ipairs(offers) do
    local turns = offered[3] and of_suspects or of_ready
    turns[#turns + 1] = tonumber(offered[2]) * PRIORITY_WEIGHT + (offered[4] or turn + n)
    turns[#turns + 1] = offered[1]
  end
  add_to_ring(ready, suspects, of_ready)
  add_to_ring(suspects, ready, of_suspects)
  return #offers
end

local function wake_one()
  if redis.call('LLEN', wake) == 0 then redis.call('LPUSH', wake, '1') end
end

-- Returns the partition in which an unclaimed activity waits. A suspect leaves its shared partition, which would have
-- to wait for a quarantine process otherwise.
local function place_of(partition, id, crashes)
  local shared = home_of(partition)
  if not is_shared(shared) then return partition end
  return is_suspect(id, crashes) and single_of(id, shared) or shared
end

-- Returns the part of a suffix that outlasts a run: the limits.
local function limits_in(suffix)
  return suffix and string.find(suffix, '=', 1, true) and suffix or ''
end

-- Adds unclaimed activities to their partitions: {id, priority, sequence, crashes, partition, suffix} each.
local function add_pending(entries)
  local texts, members, partitions, heads, seen, turn = {}, {}, {}, {}, {}, nil
  for n, entry in ipairs(entries) do
    local id, priority, sequence, crashes, partition, suffix = unpack(entry)
    suffix = suffix or ''
    local kind = string.sub(partition, 1, 2)
    if kind == 'f:' or kind == 'c:' then
      partition = place_of(partition, id, crashes)
      if suffix == '' and string.sub(home_of(partition), 3, 3) == '\31' then
        -- Without a fair key the activities of a shared partition keep their order among those of other partitions.
        turn = turn or redis.call('HINCRBY', counters, 'turn', #entries) - #entries
        suffix = '\31' .. int(turn + n)
      end
    end
    texts[#texts + 1], texts[#texts + 2] = id, pack(priority, sequence, crashes, '-' .. suffix, partition)
    members[#members + 1], members[#members + 2] = 0, member(partition, priority, sequence, id)
    if not seen[partition] then
      seen[partition] = true
      partitions[#partitions + 1] = partition
      if kind == 'i:' and is_own(partition) then heads[partition] = {priority, is_suspect(id, crashes)} end
    end
  end
  call_with('HSET', meta, texts)
  call_with('ZADD', pending, members)
  offer(partitions, heads)
end
