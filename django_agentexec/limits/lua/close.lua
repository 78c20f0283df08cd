-- Closes the buckets: no call to an endpoint is granted for some time. ARGV: microseconds, the endpoint, then per bucket
-- its four limits.
local until_then, endpoint = now + tonumber(ARGV[1]), ARGV[2]
for n = 1, #KEYS / KEYS_PER_BUCKET do
  local b = bucket_of(n, 3)
  for field, time in pairs(closures(b)) do
    if time <= now then redis.call('HDEL', b.state, field) end
  end
  if until_then > closed_until(b, endpoint) then
    redis.call('HSET', b.state, CLOSED .. endpoint, int(until_then))
    keep(b)
  end
end
