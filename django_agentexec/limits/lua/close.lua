-- Closes the buckets: no call is granted for some time. ARGV: microseconds, then per bucket its four limits.
local until_then = now + tonumber(ARGV[1])
for n = 1, #KEYS / KEYS_PER_BUCKET do
  local b = bucket_of(n, 2)
  if until_then > tonumber(redis.call('HGET', b.state, 'closed_until') or '0') then
    redis.call('HSET', b.state, 'closed_until', int(until_then))
    keep(b)
  end
end
