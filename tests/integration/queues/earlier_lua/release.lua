-- Puts back every claim of one worker, except those it still knows.
-- ARGV from 3: worker, crashed (0/1), then per claim to keep id, fence. Returns how many were put back.
-- Looks at every lease, of which there are as many as running activities.
local worker, crashed = ARGV[3], ARGV[4] == '1'
local keep = {}
for i = 5, #ARGV, 2 do keep[ARGV[i]] = ARGV[i + 1] end

local released = 0
for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  local text = redis.call('HGET', meta, id)
  if text then
    local _, _, _, holder, partition = unpack_meta(text)
    if holder == worker and redis.call('HGET', locks, partition) ~= keep[id] then
      put_back(id, text, crashed)
      released = released + 1
    end
  end
end
if redis.call('ZCARD', ready) > 0 then wake_one() end
return released
