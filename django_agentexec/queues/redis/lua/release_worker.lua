-- Releases every claim of one worker, except those to keep.
-- ARGV from 3: worker, crashed (0/1), whether the worker itself is the caller (0/1), then per claim to keep id, fence.
-- Returns the number of released claims.
local worker, charge, is_own_call = ARGV[3], ARGV[4] == '1' and 'crash' or nil, ARGV[5] == '1'
local keep = {}
for i = 6, #ARGV, 2 do keep[ARGV[i]] = ARGV[i + 1] end

-- Rebuilds the index from all leases (one per running activity) if it may be incomplete: after claims of an earlier
-- release, or after the eviction of its key. Claims of a worker that is itself the caller are in the index.
local function complete_index()
  local indexed, claimed = redis.call('ZCARD', by_worker), redis.call('ZCARD', leases)
  if is_own_call and (indexed > 0 or claimed == 0) then return end
  local beats = redis.call('HMGET', counters, 'beat', 'indexed_beat', 'mixed_until')
  if indexed == claimed and beats[1] == beats[2] and tonumber(beats[3] or 0) < now then return end
  local ids, entries = redis.call('ZRANGE', leases, 0, -1), {}
  local _, _, workers = locks_of(ids)
  for n, holder in ipairs(workers) do
    if holder ~= '' then entries[#entries + 1], entries[#entries + 2] = 0, entry_of(holder, ids[n]) end
  end
  redis.call('DEL', by_worker)
  call_with('ZADD', by_worker, entries)
end

complete_index()
local released = 0
for _, entry in ipairs(redis.call('ZRANGEBYLEX', by_worker, '[' .. worker .. '\0', '(' .. worker .. '\1')) do
  local id = string.sub(entry, -ID)
  local text = redis.call('ZSCORE', leases, id) and redis.call('HGET', meta, id)
  local _, _, _, holder, partition = unpack_meta(text or '')
  if holder ~= worker then
    redis.call('ZREM', by_worker, entry)  -- a worker of an earlier release has ended this lease
  elseif redis.call('HGET', locks, partition) ~= keep[id] then
    put_back(id, text, charge)
    released = released + 1
  end
end
if turns_of(ready) > 0 then wake_one() end
return released
