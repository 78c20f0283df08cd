-- Returns a page of the current claims: {cursor of the next page ('0': none), then per claim id, fence}.
-- ARGV from 3: cursor, page size. A claim that exists during the whole iteration is on at least one page.
local page = redis.call('ZSCAN', leases, ARGV[3], 'COUNT', ARGV[4])
local ids, reply = {}, {page[1]}
for i = 1, #page[2], 2 do ids[#ids + 1] = page[2][i] end
local _, fences = locks_of(ids)
for n, fence in ipairs(fences) do
  if fence then reply[#reply + 1], reply[#reply + 2] = ids[n], fence end
end
return reply
