-- Gives claimed tasks back to the front of their queues, in their old order.
-- ARGV[1]  -> worker id
-- ARGV[2]  -> '1' if the tasks had been started: then the attempt still counts
-- ARGV[..] -> two for each task, in the order of the claim: id, attempt
-- Returns  how many were given back; those that are no longer this worker's are left alone.

local worker, started, n = ARGV[1], ARGV[2] == '1', 0
for i = #ARGV - 1, 3, -2 do
  local h, tail = read(ARGV[i])
  if owned(h, worker, ARGV[i + 1]) then
    redis.call('ZREM', K.processing, h.id)
    if not started then h.attempts, h.started_at = h.attempts - 1, nil end
    enqueue(h, tail, true)
    n = n + 1
  end
end
if n > 0 then count('released', n) end
return n
