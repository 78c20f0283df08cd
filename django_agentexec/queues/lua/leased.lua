-- Returns the claims that are out: {id, fence, ...}, as many as running activities.
local ids, reply = redis.call('ZRANGE', leases, 0, -1), {}
local _, fences = locks_of(ids)
for n, fence in ipairs(fences) do
  if fence then reply[#reply + 1], reply[#reply + 2] = ids[n], fence end
end
return reply
