-- Grants a call in all of its buckets, or in none: then it gets a ticket, and the reply is the wait in microseconds.
-- ARGV: reservation, ticket, tenant, tokens, lease and patience in microseconds (-1: it waits for any time), number of
-- buckets, how long a ticket is kept for a caller that asks again soon, and for one that is suspended, and the endpoint;
-- then per bucket rpm, tpm, concurrency (0: no limit) and the window in microseconds.
local reservation, ticket, tenant, tokens = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local lease, patience, count = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local poll_grace, suspended_grace, endpoint = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local LIMITS = 11

-- Returns the turn of a new ticket. The tenants take turns; the tickets of a tenant have successive turns.
local function next_turn(b)
  local head = redis.call('ZRANGE', b.queue, 0, 0, 'WITHSCORES')
  if not head[2] then
    redis.call('DEL', b.turns)
    return 0
  end
  local current, last = math.floor(head[2] / SEQUENCES), redis.call('HGET', b.turns, tenant)
  return last and math.max(current, last + 1) or current
end

-- Returns the number of tickets that are served before this call, and their tokens; sets the call's turn.
local function ahead_of(b)
  b.score = redis.call('ZSCORE', b.queue, ticket)
  local ahead
  if b.score then
    ahead = redis.call('ZRANK', b.queue, ticket)
  else
    b.turn = next_turn(b)
    ahead = redis.call('ZCOUNT', b.queue, '-inf', '(' .. int((b.turn + 1) * SEQUENCES))
  end
  if ahead == 0 or b.tpm == 0 then return ahead, 0 end
  local first, sum = redis.call('ZRANGE', b.queue, 0, math.min(ahead, MAX_AHEAD) - 1), 0
  for _, amount in ipairs(redis.call('HMGET', b.tickets, unpack(first))) do sum = sum + tonumber(amount or 0) end
  return ahead, sum * ahead / #first
end

-- Returns the time until `needed` tokens of the window are free again. After `MAX_READ` grants it is an estimate, by
-- their average size.
local function wait_for_tokens(b, needed)
  local grants = redis.call('ZRANGE', b.tokens, 0, MAX_READ - 1, 'WITHSCORES')
  local ids, freed = {}, 0
  for n = 1, #grants, 2 do ids[#ids + 1] = grants[n] end
  for n, amount in ipairs(#ids > 0 and redis.call('HMGET', b.amounts, unpack(ids)) or {}) do
    freed = freed + tonumber(amount or 0)
    if freed >= needed then return grants[2 * n] + b.window - now end
  end
  if #ids == MAX_READ and freed > 0 then
    local place = math.floor(#ids * needed / freed)
    local grant = redis.call('ZRANGE', b.tokens, place, place, 'WITHSCORES')
    if grant[2] then return grant[2] + b.window - now end
    freed = total_of(b)
  end
  return b.window * (1 + math.floor(math.max(0, needed - freed - 1) / b.tpm))
end

-- Returns 0 if the call fits into the bucket behind the tickets ahead, otherwise how long it has to wait at least.
local function wait_for(b)
  local ahead, tokens_ahead = ahead_of(b)
  local wait = 0
  if b.rpm > 0 then
    local used = redis.call('ZCARD', b.requests)
    local excess = used + ahead + 1 - b.rpm
    if excess > used then
      wait = math.max(wait, b.window * (1 + math.floor((excess - used - 1) / b.rpm)))
    elseif excess > 0 then
      local grant = redis.call('ZRANGE', b.requests, excess - 1, excess - 1, 'WITHSCORES')
      wait = math.max(wait, grant[2] + b.window - now)
    end
  end
  if b.tpm > 0 then
    local excess = total_of(b) + tokens_ahead + b.need - b.tpm
    if excess > 0 then wait = math.max(wait, wait_for_tokens(b, excess)) end
  end
  if b.concurrency > 0 then
    local excess = redis.call('ZCARD', b.open) + ahead + 1 - b.concurrency
    if excess > 0 then
      local duration = tonumber(redis.call('HGET', b.state, 'duration') or SLOT_WAIT)
      wait = math.max(wait, MIN_SLOT_WAIT, duration * excess / b.concurrency)
    end
  end
  return wait
end

local function grant(b)
  if b.rpm > 0 then redis.call('ZADD', b.requests, int(now), reservation) end
  if b.tpm > 0 then add_tokens(b, reservation, b.need) end
  if b.concurrency > 0 then redis.call('ZADD', b.open, int(now + lease), reservation) end
  if b.score then
    withdraw(b, ticket)
  else
    redis.call('ZREM', b.alive, ticket)  -- it may have waited for the end of a closure
    if redis.call('EXISTS', b.queue) == 1 then redis.call('HSET', b.turns, tenant, int(b.turn)) end
  end
  keep(b)
end

local function note_waiting(b, wait)
  local is_suspended = patience >= 0 and wait > patience
  redis.call('ZADD', b.alive, int(now + (is_suspended and wait + suspended_grace or poll_grace)), ticket)
  keep(b)
end

local function enqueue(b, wait)
  if not b.score then
    local sequence = redis.call('HINCRBY', b.state, 'sequence', 1) % SEQUENCES
    redis.call('ZADD', b.queue, int(b.turn * SEQUENCES + sequence), ticket)
    redis.call('HSET', b.turns, tenant, int(b.turn))
  end
  redis.call('HSET', b.tickets, ticket, int(b.need))
  note_waiting(b, wait)
end

local closed = 0
for n = 1, count do closed = math.max(closed, closed_until(bucket_of(n, LIMITS), endpoint) - now) end
if closed > 0 then
  for n = 1, count do
    local b = bucket_of(n, LIMITS)
    forget_old(b)
    withdraw(b, ticket)  -- it must not hold back calls to other endpoints
    if closed_until(b, endpoint) > now then note_waiting(b, closed) end
  end
  return int(closed)
end

local buckets, refused, longest = {}, nil, 0
for n = 1, count do
  local b = bucket_of(n, LIMITS)
  b.need = b.tpm > 0 and math.min(tokens, b.tpm) or tokens  -- a larger call goes alone
  forget_old(b)
  local wait = wait_for(b)
  if wait > 0 and not refused then refused = n end
  longest = math.max(longest, wait)
  buckets[n] = b
end
for n, b in ipairs(buckets) do
  if not refused then
    grant(b)
  elseif n == refused or (n < refused and b.score) then
    enqueue(b, longest)
  else
    withdraw(b, ticket)  -- it must not hold back others where it is not the next that waits
  end
end
return refused and int(longest) or '0'
