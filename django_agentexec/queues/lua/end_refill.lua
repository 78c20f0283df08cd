-- Ends the wait for a refill: everything that the rows know is here again. ARGV[3]: the token of the loss that was
-- healed; a later loss has another one, and its wait goes on.
if redis.call('HGET', counters, 'refill') ~= ARGV[3] then return 0 end
redis.call('HDEL', counters, 'refill', 'refill_until')
if redis.call('ZCARD', ready) > 0 then wake_one() end
return 1
