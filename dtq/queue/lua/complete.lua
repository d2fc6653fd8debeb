-- Stores results, each only from the worker that owns the task, and frees the children that waited for them.
-- ARGV[1]  -> worker id
-- ARGV[..] -> five for each result: id, attempt, seconds in the handler, seconds since it ended, result as JSON
-- Returns  for each: {'completed'}; {'repeated'}: this attempt has stored its result before;
--          {'stale'}: the task is no longer this attempt's, and the result is refused.

local worker, answers, seconds = ARGV[1], {}, nil

local function complete(id, attempt, duration, age, result)
  local h, tail = read(id)
  if not owned(h, worker, attempt) then
    local same = h and h.status == 'completed' and h.worker_id == worker and h.attempts == tonumber(attempt)
    if same then return 'repeated' end
    count('stale')
    return 'stale'
  end
  redis.call('ZREM', K.processing, id)
  h.duration, h.completed_at, h.error = tonumber(duration), now() - age, nil
  h.started_at = math.max(h.started_at, h.completed_at - duration)
  finish(h, string.sub(tail, 1, -2) .. ',"result":' .. result .. '}', 'completed')
  seconds = (seconds or 0) + h.duration
  redis.call('INCR', K.completed)
  redis.call('ZADD', K.completed_at, h.completed_at, id) -- K.finished holds cancelled tasks, too
  redis.call('ZADD', K.task_times, duration, id)
  return 'completed'
end

for i = 2, #ARGV, 5 do
  answers[#answers + 1] = {complete(unpack(ARGV, i, i + 4))}
end
if seconds then redis.call('INCRBYFLOAT', K.run_seconds, seconds) end
settle_here()
return answers
