-- Returns the requests and tokens of the window, the calls in progress and waiting, and for how long the bucket is
-- closed in microseconds. ARGV: its four limits.
local b = bucket_of(1, 1)
forget_old(b)
local closed = tonumber(redis.call('HGET', b.state, 'closed_until') or '0')
return {
  redis.call('ZCARD', b.requests), total_of(b), redis.call('ZCARD', b.open), redis.call('ZCARD', b.queue),
  int(math.max(0, closed - now)),
}
