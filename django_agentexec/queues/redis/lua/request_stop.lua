-- Notifies the workers of claims to stop. ARGV from 3: per claim id, fence. Returns the number of new notifications.
local ids, notified = {}, 0
for i = 3, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local _, fences = locks_of(ids)
for n, id in ipairs(ids) do
  if fences[n] == ARGV[2 * n + 2] and redis.call('HSET', cancels, id, '1') == 1 then
    redis.call('PUBLISH', channel .. ':canceled', id)
    notified = notified + 1
  end
end
return notified
