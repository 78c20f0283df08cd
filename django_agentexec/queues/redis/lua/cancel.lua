-- Removes waiting activities, and notifies the workers of claimed activities to stop. ARGV from 3: ids.
for i = 3, #ARGV do
  local id = ARGV[i]
  local text = redis.call('HGET', meta, id)
  if text then
    local priority, sequence, _, _, partition, suffix = unpack_meta(text)
    redis.call('HDEL', again, id)
    if redis.call('ZSCORE', leases, id) then
      redis.call('HSET', cancels, id, '1')
      redis.call('PUBLISH', channel .. ':canceled', id)
    else
      redis.call('ZREM', pending, member(partition, priority, sequence, id))
      redis.call('ZREM', delayed, id)
      redis.call('HDEL', meta, id)
      forget_expired_leases({id})
      -- The turn of the partition may belong to this activity; the remaining activities get another turn.
      redis.call('ZREM', ready, partition)
      redis.call('ZREM', suspects, partition)
      offer({partition})
      -- The turn of a limit's partition may have been this activity's.
      local limits = limits_of(partition, suffix)
      for key in each_limit(limits or '') do unpark(key, 1) end
      if limits and turns_of(ready) > 0 then wake_one() end
    end
  end
  redis.call('PUBLISH', channel .. ':finished:' .. id, id)
end
return #ARGV - 2
