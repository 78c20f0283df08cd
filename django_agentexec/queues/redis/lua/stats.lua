-- Counts a queue's activities by place: {ready, pending, suspects, leased, delayed, dead}.
return {
  turns_of(ready), redis.call('ZCARD', pending), turns_of(suspects),
  redis.call('ZCARD', leases), redis.call('ZCARD', delayed), redis.call('ZCARD', dead),
}
