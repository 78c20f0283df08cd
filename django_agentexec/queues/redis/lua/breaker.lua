-- Circuit breakers of models, by the server's clock. Has no prelude.
-- KEYS[1]: a hash with one JSON object per breaker.
-- ARGV: verb, name, failures, window in ms, open in ms, rate, then by verb:
--   acquire: token, lease in ms; returns {permitted, token of the probe, ms until the next probe}
--   record: ok, token, reason; returns 1 if the breaker has opened or closed
--   release: token
local SLOTS = 6 -- as in breakers.py
local FORGET_AFTER_MS = 86400000
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local verb, name = ARGV[1], ARGV[2]
local min_failures, window, open_ms, rate = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local text = redis.call('HGET', KEYS[1], name)
local breaker = text and cjson.decode(text) or {state = 'closed', slots = {}}

local function save()
  breaker.at = now
  redis.call('HSET', KEYS[1], name, cjson.encode(breaker))
  redis.call('PEXPIRE', KEYS[1], FORGET_AFTER_MS)
end

local function acquire(token, lease)
  if breaker.state == 'closed' then return {1, '', 0} end
  local is_own = breaker.state == 'half_open' and breaker.probe == token
  if not is_own and now < breaker['until'] then return {0, '', breaker['until'] - now} end
  breaker.state, breaker.probe, breaker['until'] = 'half_open', token, now + lease
  save()
  return {1, token, 0}
end

-- Counts a call; returns the calls and failures in the window. Slots are {number, calls, failures}.
local function count(ok)
  local slot = math.floor(now * SLOTS / window)
  local kept, calls, failures = {}, 1, ok and 0 or 1
  local current = {slot, calls, failures}
  for _, each in ipairs(breaker.slots) do
    if each[1] == slot then
      current = {slot, each[2] + calls, each[3] + failures}
    elseif each[1] > slot - SLOTS and each[1] < slot then
      kept[#kept + 1] = each
    end
  end
  kept[#kept + 1] = current
  breaker.slots = kept
  calls, failures = 0, 0
  for _, each in ipairs(kept) do calls, failures = calls + each[2], failures + each[3] end
  return calls, failures
end

local function record(ok, token, reason)
  if not ok and reason ~= '' then breaker.reason = reason end
  if breaker.state ~= 'closed' then
    if breaker.state ~= 'half_open' or breaker.probe ~= token then return 0 end
    if ok then
      breaker = {state = 'closed', slots = {}}
    else
      breaker.state, breaker.probe, breaker['until'] = 'open', '', now + open_ms
    end
    save()
    return 1
  end
  local calls, failures = count(ok)
  local opens = not ok and min_failures > 0 and failures >= min_failures and failures >= rate * calls
  if opens then
    breaker.state, breaker.slots, breaker.probe = 'open', {}, ''
    breaker.opened_at, breaker['until'] = now, now + open_ms
  end
  save()
  return opens and 1 or 0
end

if verb == 'acquire' then return acquire(ARGV[7], tonumber(ARGV[8])) end
if verb == 'record' then return record(ARGV[7] == '1', ARGV[8], ARGV[9]) end
if ARGV[7] ~= '' and breaker.probe == ARGV[7] then
  breaker.probe, breaker['until'] = '', now
  save()
end
return 0
