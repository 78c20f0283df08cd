-- Extends the leases of calls in progress, all in one bucket. ARGV: lease in microseconds, then reservations.
local b = bucket_of(1)
for n = 2, #ARGV do redis.call('ZADD', b.open, int(now + tonumber(ARGV[1])), ARGV[n]) end
