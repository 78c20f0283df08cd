-- Replaces the limits of rows, unless another process has done so meanwhile.
-- ARGV from 3: the revision that is to be replaced, the new revision ('' without limits), whether the queue is paused
-- (0/1), then per limit key, "maximum=count=period". Returns whether the limits were replaced (0/1).
if (redis.call('HGET', counters, 'limits') or '') ~= ARGV[3] then return 0 end
local former, texts, changed = redis.call('HGETALL', overrides), {}, {}
for i = 6, #ARGV, 2 do texts[ARGV[i]] = ARGV[i + 1] end
for i = 1, #former, 2 do
  if texts[former[i]] ~= former[i + 1] then changed[former[i]] = true end
end
redis.call('DEL', overrides)
for key, text in pairs(texts) do
  redis.call('HSET', overrides, key, text)
  changed[key] = true
end
if ARGV[4] == '' then
  redis.call('HDEL', counters, 'limits')
else
  redis.call('HSET', counters, 'limits', ARGV[4])
end
if ARGV[5] == '1' then
  redis.call('HSET', counters, 'closed', '1')
else
  redis.call('HDEL', counters, 'closed')
end
for key in pairs(changed) do unpark(key, MAX_UNPARKED) end
if turns_of(ready) > 0 then wake_one() end
return 1
