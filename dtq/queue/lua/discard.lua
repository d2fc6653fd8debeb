-- Takes tasks out of the dead letter for good: they are cancelled, and so is all that waits for them.
-- ARGV[..] -> ids, best from the tail of the dead letter on, where they are looked for
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
