-- Records failed attempts. Each task is tried again after a wait that doubles each time, or goes to the dead letter.
-- ARGV[1]  -> worker id
-- ARGV[..] -> eight for each: task id; attempt; outcome ('failed' or 'timeout'); error message; retries allowed, 0 if
--             another try is hopeless; factor for the wait: 1 plus a random share, so that many failed tasks do not
--             come back at once; seconds in the handler; seconds since it ended
-- Returns  for each: {'retry', number, seconds to wait}; {'failed'}; {'repeated'}: was recorded before;
--          {'stale'}: the task is no longer this attempt's.

local worker, answers = ARGV[1], {}

local function fail(id, attempt, outcome, message, allowed, chance, duration, age)
  local h, tail = read(id)
  if not owned(h, worker, attempt) then
    local last = h and h.history and h.history[#h.history]
    local same = last and last.worker == worker and last.attempt == tonumber(attempt)
    if same and last.outcome ~= 'worker lost' then return {'repeated'} end
    count('stale')
    return {'stale'}
  end
  local ended = now() - age
  h.started_at = math.max(h.started_at, ended - duration)
  redis.call('ZREM', K.processing, id)
  remember(h, ended, outcome, message)
  if h.retry_count >= tonumber(allowed) then
    bury(h, tail)
    return {'failed'}
  end
  local wait = math.min(S.backoff_cap, S.backoff_base * 2 ^ h.retry_count) * chance
  h.retry_count = h.retry_count + 1
  postpone(h, tail, 'retrying', now() + wait)
  count('retried')
  return {'retry', h.retry_count, tostring(wait)}
end

for i = 2, #ARGV, 8 do answers[#answers + 1] = fail(unpack(ARGV, i, i + 7)) end
return answers
