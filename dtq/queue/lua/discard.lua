-- Takes tasks out of the dead letter for good: cancels them and all tasks that wait for them.
-- ARGV[..] -> ids, best the oldest first: the search begins at the tail of the dead letter
-- Returns  the ids that were there.

local found = {}
for _, id in ipairs(ARGV) do
  local h, tail = read(id)
  if redis.call('LREM', K.dead_letter, -1, id) == 1 and h then
    finish(h, tail, 'cancelled')
    cancel_dependents(id)
    found[#found + 1] = id
  end
end
if #found > 0 then count('discarded', #found) end
return found
