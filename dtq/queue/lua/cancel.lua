-- Cancels a task that waits to run, and all tasks that depend on it.
-- ARGV[1]  -> id
-- Returns  'cancelled', 'unknown', or the status that forbids it.

local h, tail = read(ARGV[1])
if not h then return 'unknown' end
local zsets = {scheduled = K.delayed, retrying = K.delayed, waiting = K.waiting}
if h.status == 'pending' and h.parked then
  redis.call('ZREM', K.parked, parked_member(h))
elseif h.status == 'pending' then
  redis.call('LREM', QUEUES[h.priority], 1, h.id)
elseif zsets[h.status] then
  redis.call('ZREM', zsets[h.status], h.id)
  redis.call('DEL', K.dependencies .. h.id)
else
  return h.status
end
finish(h, tail, 'cancelled')
count('cancelled')
settle_here()
return 'cancelled'
