-- Shared by all scripts of the limits: the keys of the buckets, the clock, and the rules by which calls wait.
--
-- A bucket is one limit, or one limit of one tenant. `requests` and `tokens` hold the grants of the window by their
-- time, `amounts` the tokens of each grant, and `state` their sum, the times until which the bucket is closed for an
-- endpoint, and the average duration of calls. `open` holds the calls in progress by the end of their lease. Calls that
-- wait have a ticket: in `queue` by its turn, in `tickets` with its tokens, and in `alive` by the time at which it
-- expires; calls that wait for the end of a closure only in `alive`. `turns` holds the last turn of each tenant.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]  -- microseconds

local KEYS_PER_BUCKET = 9
local SEQUENCES = 1000000     -- tickets of one turn are served in the order of their arrival
local BATCH = 1000            -- old grants or tickets that a command removes
local MAX_AHEAD = 64          -- tickets ahead whose tokens are added up; those of further tickets are extrapolated
local MAX_READ = 500          -- grants that are read to find the time at which enough tokens are free
local SLOT_WAIT = 1000000     -- microseconds that a call is expected to last before any has ended
local MIN_SLOT_WAIT = 10000   -- microseconds until a slot may be free
local KEEP = 7200000          -- milliseconds for which an unused bucket is kept, in addition to its window

-- Lua's default conversion keeps only 14 digits.
local function int(number) return string.format('%.0f', number) end

local function bucket_of(n, limits)
  local base = (n - 1) * KEYS_PER_BUCKET
  local b = {
    requests = KEYS[base + 1], tokens = KEYS[base + 2], amounts = KEYS[base + 3], state = KEYS[base + 4],
    open = KEYS[base + 5], queue = KEYS[base + 6], tickets = KEYS[base + 7], alive = KEYS[base + 8],
    turns = KEYS[base + 9], first = base + 1,
  }
  if limits then
    local from = limits + (n - 1) * 4
    b.rpm, b.tpm, b.concurrency = tonumber(ARGV[from]), tonumber(ARGV[from + 1]), tonumber(ARGV[from + 2])
    b.window = tonumber(ARGV[from + 3])
  end
  return b
end

local function keep(b)
  local ms = int(KEEP + b.window / 1000)
  for n = b.first, b.first + KEYS_PER_BUCKET - 1 do redis.call('PEXPIRE', KEYS[n], ms) end
end

local CLOSED = 'closed_until:'  -- the field of `state` is this and the endpoint

local function closed_until(b, endpoint) return tonumber(redis.call('HGET', b.state, CLOSED .. endpoint) or '0') end

-- Returns the times of all closures, by their field.
local function closures(b)
  local found, values = {}, redis.call('HGETALL', b.state)
  for n = 1, #values, 2 do
    if string.sub(values[n], 1, #CLOSED) == CLOSED then found[values[n]] = tonumber(values[n + 1]) end
  end
  return found
end

local function total_of(b) return tonumber(redis.call('HGET', b.state, 'total') or '0') end

local function withdraw(b, ticket)
  redis.call('ZREM', b.alive, ticket)
  if redis.call('ZREM', b.queue, ticket) == 1 then redis.call('HDEL', b.tickets, ticket) end
end

-- Removes grants that have left the window, calls whose lease has ended, and tickets that have expired.
local function forget_old(b)
  local past = int(now - b.window)
  redis.call('ZREMRANGEBYSCORE', b.requests, '-inf', past)
  redis.call('ZREMRANGEBYSCORE', b.open, '-inf', int(now))
  repeat
    local old = redis.call('ZRANGEBYSCORE', b.tokens, '-inf', past, 'LIMIT', 0, BATCH)
    if #old > 0 then
      local freed = 0
      for _, amount in ipairs(redis.call('HMGET', b.amounts, unpack(old))) do freed = freed + tonumber(amount or 0) end
      redis.call('HINCRBY', b.state, 'total', int(-freed))
      redis.call('HDEL', b.amounts, unpack(old))
      redis.call('ZREM', b.tokens, unpack(old))
    end
  until #old < BATCH
  repeat
    local expired = redis.call('ZRANGEBYSCORE', b.alive, '-inf', int(now), 'LIMIT', 0, BATCH)
    for _, ticket in ipairs(expired) do withdraw(b, ticket) end
    if #expired > 0 then redis.call('ZREM', b.alive, unpack(expired)) end
  until #expired < BATCH
end

-- Adds tokens to the window. The sum may exceed the limit; later calls wait until it is within the limit again.
local function add_tokens(b, id, amount)
  redis.call('ZADD', b.tokens, int(now), id)
  redis.call('HSET', b.amounts, id, int(amount))
  redis.call('HINCRBY', b.state, 'total', int(amount))
end

-- Removes the tokens of a grant from the window.
local function remove_tokens(b, id)
  local amount = redis.call('HGET', b.amounts, id)
  if amount then
    redis.call('HINCRBY', b.state, 'total', int(-amount))
    redis.call('HDEL', b.amounts, id)
    redis.call('ZREM', b.tokens, id)
  end
end
