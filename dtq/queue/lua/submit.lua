-- Stores new tasks, each in the place that fits it: all of them, or none.
-- ARGV[..] -> a document for each: {"id":…,"type":…,"data":…}
-- Returns  {'ok', id…}: the ids that were new. An id that exists already is left as it is (idempotency).
--          {'unknown', parent} | {'cancelled', parent}: a parent will never be completed.
--          {'conflict', id}: the id exists, with another fingerprint.

local fresh, known = {}, {} -- known: id -> header, of all that these documents name

local function look(id)
  if known[id] == nil then known[id] = header(id) end
  return known[id]
end

for _, document in ipairs(ARGV) do
  local h, tail = split(document)
  local old = look(h.id)
  if old == false or (old and old.fingerprint ~= h.fingerprint) then return {'conflict', h.id} end
  if not old then
    h.unmet = {}
    for _, parent in ipairs(h.depends_on or {}) do
      local p = look(parent)
      if not p then return {'unknown', parent} end
      if p.status == 'cancelled' then return {'cancelled', parent} end
      if p.status ~= 'completed' then table.insert(h.unmet, parent) end
    end
    known[h.id] = h
    fresh[#fresh + 1] = {h, tail}
  end
end

local created, answer = now(), {'ok'}
for _, pair in ipairs(fresh) do
  local h, tail = pair[1], pair[2]
  local due = (h.delay or 0) > 0 and created + h.delay or nil
  h.priority, h.created_at = h.priority or 'normal', created
  h.attempts, h.retry_count, h.crashes = 0, 0, 0
  forget(h.id) -- a task that had this id before has expired
  for _, parent in ipairs(h.depends_on or {}) do
    local met = known[parent].status == 'completed' -- then there is nothing to tell
    local turn = created + 1e-6 * #answer -- the children of one call in their order
    redis.call('ZADD', K.dependents .. parent, met and -turn or turn, h.id)
    redis.call('PERSIST', K.task .. parent)
  end
  if #h.unmet > 0 then
    for _, parent in ipairs(h.unmet) do redis.call('SADD', K.dependencies .. h.id, parent) end
    redis.call('ZADD', K.waiting, created, h.id)
    h.status, h.due = 'waiting', due
    write(h, tail)
  elseif due then
    postpone(h, tail, 'scheduled', due)
  else
    enqueue(h, tail)
  end
  redis.call('PUBLISH', K.new, h.id)
  answer[#answer + 1] = h.id
end
if #fresh > 0 then count('submitted', #fresh) end
return answer
