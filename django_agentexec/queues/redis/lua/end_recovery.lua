-- Ends the wait for a recovery: all activities of the rows are in the queue again. ARGV[3]: the token of the repaired
-- loss; a later loss has another token, and its wait continues.
if redis.call('HGET', counters, 'refill') ~= ARGV[3] then return 0 end
redis.call('HDEL', counters, 'refill', 'refill_until')
if turns_of(ready) > 0 then wake_one() end
return 1
