-- Ends the wait for a refill: everything that the rows know is here again.
redis.call('HDEL', counters, 'refill_until')
if redis.call('ZCARD', ready) > 0 then wake_one() end
return 1
