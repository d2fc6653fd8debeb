-- Takes tasks out of the dead letter and gives them a fresh start at the end of their queue.
-- ARGV[..] -> ids, best the oldest first: the search begins at the tail of the dead letter
-- Returns  how many of them it has looked at (the others would be too much work), then the ids that were there.

local found = take_dead(function(h, tail)
  h.retry_count, h.crashes, h.error = 0, 0, nil
  enqueue(h, tail)
end)
if #found > 1 then count('requeued', #found - 1) end
return found
