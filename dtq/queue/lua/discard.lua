-- Takes tasks out of the dead letter for good: cancels them and all tasks that wait for them.
-- ARGV[..] -> ids, best the oldest first: the search begins at the tail of the dead letter
-- Returns  how many of them it has looked at (the others would be too much work), then the ids that were there.

local found = take_dead(function(h, tail) finish(h, tail, 'cancelled') end)
if #found > 1 then count('discarded', #found - 1) end
settle_here()
return found
