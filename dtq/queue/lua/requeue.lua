-- Takes tasks out of the dead letter and gives them a fresh start at the end of their queue.
-- ARGV[..] -> ids, best the oldest first: the search begins at the tail of the dead letter
-- Returns  the ids that were there.

local found = {}
for _, id in ipairs(ARGV) do
  local h, tail = read(id)
  if redis.call('LREM', K.dead_letter, -1, id) == 1 and h then
    h.retry_count, h.crashes, h.error = 0, 0, nil
    enqueue(h, tail)
    found[#found + 1] = id
  end
end
if #found > 0 then count('requeued', #found) end
return found
