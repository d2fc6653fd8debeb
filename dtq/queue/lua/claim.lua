-- Claims pending tasks for a worker and starts their leases: high before normal, oldest first. After S.high_burst
-- high tasks in a row while a normal one waited, a normal one is next. A task that has already lost a worker is
-- claimed alone: if it kills the next worker too, no other task counts a crash.
-- ARGV[1]  -> worker id
-- ARGV[2]  -> how many tasks at most
-- Returns  their documents, in the order to run them.

local worker, n = ARGV[1], tonumber(ARGV[2])
local before = tonumber(redis.call('GET', K.high_streak) or 0)
local started, streak, documents = now(), before, {}

local function next_id()
  local normal_turn = S.high_burst > 0 and streak >= S.high_burst
  local id = not normal_turn and redis.call('RPOP', K.pending_high)
  if id then
    streak = redis.call('LLEN', K.pending) > 0 and streak + 1 or 0
    return id
  end
  streak = 0
  return redis.call('RPOP', K.pending) or (normal_turn and redis.call('RPOP', K.pending_high))
end

while #documents < n do
  local last = streak
  local id = next_id()
  if not id then break end
  local h, tail = read(id)
  if h then -- else somebody deleted the document by hand
    if h.crashes > 0 and #documents > 0 then
      redis.call('RPUSH', queue_of(h), id)
      streak = last -- its turn is still to come
      break
    end
    h.status, h.worker_id, h.started_at, h.attempts = 'processing', worker, started, h.attempts + 1
    documents[#documents + 1] = write(h, tail)
    redis.call('ZADD', K.processing, started + S.lease, id)
    if h.crashes > 0 then break end
  end
end

if streak ~= before then redis.call('SET', K.high_streak, streak) end
if redis.call('LLEN', K.pending) + redis.call('LLEN', K.pending_high) > 0 then wake() end
return documents
