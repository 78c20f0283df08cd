-- Counts a queue's activities by place: {ready, pending, suspects, leased, delayed, dead}.
return {
  redis.call('ZCARD', ready), redis.call('ZCARD', pending), redis.call('ZCARD', suspects),
  redis.call('ZCARD', leases), redis.call('ZCARD', delayed), redis.call('ZCARD', dead),
}
