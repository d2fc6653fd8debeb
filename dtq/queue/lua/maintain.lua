-- Maintains the queue: due tasks become pending, tasks of lost workers go back to the front, silent workers leave
-- the set of live workers, old results are deleted. A call moves a bounded number of tasks; if it reaches the bound,
-- the next call goes on at once.
-- ARGV[1]  -> milliseconds until maintenance is due again
-- ARGV[2]  -> how many tasks of each kind at most
-- Returns  {} if another process has just done it, else {due, recovered, dead, lost workers, deleted, ids in the dead
--          letter that are beyond its limits, the oldest first, for the caller to discard}.

if not redis.call('SET', K.maintained, 1, 'NX', 'PX', ARGV[1]) then return {} end
local limit, clock = tonumber(ARGV[2]), now()
local recovered, dead, strays, deleted = 0, 0, 0, 0

local function first(zset, upto) return redis.call('ZRANGEBYSCORE', zset, '-inf', upto, 'LIMIT', 0, limit) end

local due = first(K.delayed, clock)
for _, id in ipairs(due) do
  redis.call('ZREM', K.delayed, id)
  local h, tail = read(id)
  if h then enqueue(h, tail) end
end

local expired = first(K.processing, clock)
for i = #expired, 1, -1 do -- the last goes to the front first, so that the oldest ends up before the others
  redis.call('ZREM', K.processing, expired[i])
  local h, tail = read(expired[i])
  if h then
    h.crashes = h.crashes + 1
    remember(h, clock, 'worker lost', h.worker_id .. ' was silent for ' .. S.lease .. ' s')
    if h.crashes >= S.max_crashes then
      bury(h, tail)
      dead = dead + 1
    else
      enqueue(h, tail, true)
      recovered = recovered + 1
    end
  end
end
if recovered > 0 then count('recovered', recovered) end

for _, worker in ipairs(redis.call('SMEMBERS', K.workers)) do
  if redis.call('EXISTS', K.worker .. worker) == 0 then
    redis.call('SREM', K.workers, worker)
    strays = strays + 1
  end
end

local old = first(K.finished, clock - S.result_ttl)
for _, id in ipairs(old) do
  if redis.call('SCARD', K.dependents .. id) > 0 then
    redis.call('ZADD', K.finished, clock, id) -- a child still needs its result
  else
    redis.call('ZREM', K.finished, id)
    redis.call('ZREM', K.completed_at, id)
    redis.call('ZREM', K.task_times, id)
    redis.call('DEL', K.task .. id)
    deleted = deleted + 1
  end
end

local function too_old(id)
  if S.dead_letter_ttl == 0 then return false end
  local h = read(id)
  return not h or h.history[#h.history].ended_at <= clock - S.dead_letter_ttl
end

local outlived, kept = {}, S.dead_letter_max
local excess = kept > 0 and redis.call('LLEN', K.dead_letter) - kept or 0
while #outlived < limit do
  local id = redis.call('LINDEX', K.dead_letter, -1 - #outlived)
  if not id or not (#outlived < excess or too_old(id)) then break end
  outlived[#outlived + 1] = id
end

if math.max(#due, #expired, #old, #outlived) == limit then redis.call('DEL', K.maintained) end
return {#due, recovered, dead, strays, deleted, outlived}
