-- Returns the requests and tokens of the window, the calls in progress and waiting, and for how long the bucket is
-- closed for some endpoint in microseconds. ARGV: its four limits.
local b = bucket_of(1, 1)
forget_old(b)
local closed = 0
for _, time in pairs(closures(b)) do closed = math.max(closed, time) end
return {
  redis.call('ZCARD', b.requests), total_of(b), redis.call('ZCARD', b.open), redis.call('ZCARD', b.alive),
  int(math.max(0, closed - now)),
}
