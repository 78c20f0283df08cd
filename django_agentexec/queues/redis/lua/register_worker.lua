-- Stores a heartbeat of a worker, by the server's clock, since clocks of machines may be wrong. Has no prelude.
-- KEYS[1]: the entries, by worker. ARGV: worker, its entry before and after the time, the age of the heartbeat in
-- seconds, and the seconds after which entries without a heartbeat are deleted, or '' to delete none.
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. string.format('%.6f', now - tonumber(ARGV[4])) .. ARGV[3])
if ARGV[5] ~= '' then
  local entries = redis.call('HGETALL', KEYS[1])
  for i = 1, #entries, 2 do
    local last_beat = tonumber(string.match(entries[i + 1], '"last_beat": *([%d.]+)') or '')
    if last_beat and last_beat < now - tonumber(ARGV[5]) then redis.call('HDEL', KEYS[1], entries[i]) end
  end
end
