-- Ends a call: its slot is free, and its estimate is replaced by the tokens that it has used.
-- ARGV: reservation, its estimate, the tokens used ('': unknown, the estimate remains; 'unsent': nothing was sent), the
-- microseconds since its grant, then per bucket rpm, tpm, concurrency and the window.
local reservation, estimate, used, duration = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local LIMITS = 5
local WEIGHT = 0.1  -- of a call in the average duration of calls

for n = 1, #KEYS / KEYS_PER_BUCKET do
  local b = bucket_of(n, LIMITS)
  if redis.call('ZREM', b.open, reservation) == 1 and used ~= 'unsent' then
    local average = tonumber(redis.call('HGET', b.state, 'duration') or duration)
    redis.call('HSET', b.state, 'duration', int(average + WEIGHT * (duration - average)))
  end
  if used == 'unsent' then
    redis.call('ZREM', b.requests, reservation)
    remove_tokens(b, reservation)
  elseif used ~= '' and b.tpm > 0 then
    local reserved = math.min(estimate, b.tpm)
    local excess = tonumber(used) - reserved
    if excess > 0 then
      -- Added at the time of the answer: the next calls make up for an estimate that was too low.
      add_tokens(b, reservation .. ':excess', excess)
      keep(b)
    elseif excess < 0 and redis.call('HEXISTS', b.amounts, reservation) == 1 then
      redis.call('HSET', b.amounts, reservation, used)
      redis.call('HINCRBY', b.state, 'total', int(excess))
    end
  end
end
