-- Maintains the queue: due tasks become pending, tasks of lost workers go back to the front, silent workers leave
-- the set of live workers, old results are deleted, children are told, ids without a document are let go. Each of
-- these has a bound of its own; where one reaches it, the next call goes on at once.
-- ARGV[1]  -> seconds until maintenance is due again
-- ARGV[2]  -> seconds without maintenance after which Redis must have been away
-- ARGV[3]  -> how many ids of each place are looked at
-- Returns  {} if another process has just done it, else {1 if there is more to do, due, recovered, dead, lost workers,
--          deleted, ids in the dead letter that are beyond its limits, the oldest first, for the caller to discard}.

local interval, silence, sample, clock = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), now()
local last = tonumber(redis.call('GET', K.maintained) or clock - interval)
if last <= clock and clock - last < interval then return {} end
-- While Redis was away nobody could send a heartbeat: no lease ends before there was time for one.
if clock - last > silence then redis.call('SET', K.grace, 1, 'PX', math.ceil(1000 * S.lease)) end
local due, recovered, dead, strays, deleted, outlived, more = 0, 0, 0, 0, 0, {}, 0

local function overdue(zset, upto) return redis.call('ZRANGEBYSCORE', zset, '-inf', upto, 'LIMIT', 0, S.work) end

-- Calls `action` for each of these ids, as far as the bound allows.
local function each(ids, action)
  work = 0
  for _, id in ipairs(ids) do
    if exhausted() then break end
    action(id)
  end
  if exhausted() or #ids == S.work then more = 1 end
end

each(overdue(K.delayed, clock), function(id)
  redis.call('ZREM', K.delayed, id)
  local h, tail = read(id)
  if not h then return drop(id, h) end
  if h.due then enqueue(h, tail) end
  due = due + 1
end)

local function recover(id)
  redis.call('ZREM', K.processing, id)
  local h, tail = read(id)
  if not h then return drop(id, h) end
  if h.status ~= 'processing' then return end
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

if redis.call('EXISTS', K.grace) == 0 then
  -- The last one goes to the front first, so that the oldest ends up before the others, in this slice or the next.
  each(redis.call('ZREVRANGEBYSCORE', K.processing, clock, '-inf', 'LIMIT', 0, S.work), recover)
  if recovered > 0 then count('recovered', recovered) end
end

for _, worker in ipairs(redis.call('SRANDMEMBER', K.workers, sample)) do
  if redis.call('EXISTS', K.worker .. worker) == 0 then
    redis.call('SREM', K.workers, worker)
    strays = strays + 1
  end
end
redis.call('ZREMRANGEBYSCORE', K.types, '-inf', clock)

each(overdue(K.finished, clock - S.result_ttl), function(id)
  local h, children = header(id), K.dependents .. id
  local ended = h and has_ended(h) -- else its id is used again, or its document has expired
  if ended and redis.call('ZCARD', children) > 0 then
    redis.call('ZADD', K.finished, clock, id) -- a child still needs its result
    for _, child in ipairs(redis.call('ZRANGE', children, 0, sample - 1)) do
      if redis.call('EXISTS', K.task .. child) == 0 then redis.call('ZREM', children, child) end
      spend(1)
    end
    expire(id)
    return
  end
  forget(id)
  if ended then redis.call('UNLINK', K.task .. id) elseif h == false then drop(id, h) end
  deleted = deleted + 1
end)

local function too_old(id)
  if S.dead_letter_ttl == 0 then return false end
  local h = header(id)
  local died = h and (h.history and h.history[#h.history].ended_at or h.created_at)
  return not died or died <= clock - S.dead_letter_ttl
end

work = 0
local kept = S.dead_letter_max
local excess = kept > 0 and redis.call('LLEN', K.dead_letter) - kept or 0
while not exhausted() do
  local id = redis.call('LINDEX', K.dead_letter, -1 - #outlived)
  if not id or not (#outlived < excess or too_old(id)) then break end
  outlived[#outlived + 1] = id
  spend(2) -- as much as it costs to discard it
end
if exhausted() then more = 1 end

work = 0
while not exhausted() do
  local parent = redis.call('SRANDMEMBER', K.unsettled)
  if not parent then break end
  settle(parent)
  settle_here()
end
if exhausted() then more = 1 end

---------------------------------------------------------------------------------------------------- what is amiss
-- Somebody may have deleted documents or written ids by hand. Each call looks at a part of each place.

-- Where in a place of this length this call's part begins.
local function part(length) return length > sample and math.floor(clock / interval) * sample % length or 0 end

-- Looks at a task. If there is none, or nobody can read it, its id is let go.
local function look(id)
  local h = header(id)
  if h then return h end
  drop(id, h)
  more = 1
end

local function patrol_list(list)
  local start, gone = part(redis.call('LLEN', list)), 0
  for i, id in ipairs(redis.call('LRANGE', list, start, start + sample - 1)) do
    local h = look(id)
    if not h or has_ended(h) then
      redis.call('LSET', list, start + i - 1, '')
      gone = gone + 1
    end
  end
  if gone > 0 then redis.call('LREM', list, 0, '') end
end

local function patrol_zset(zset)
  local start = part(redis.call('ZCARD', zset))
  for _, member in ipairs(redis.call('ZRANGE', zset, start, start + sample - 1)) do
    local id = zset == K.parked and parked_id(member) or member
    local h = look(id)
    if zset == K.finished then
      if not h then
        forget(id)
        deleted = deleted + 1
      end
    elseif not h or has_ended(h) then
      redis.call('ZREM', zset, member)
    elseif zset == K.waiting then
      local parent = redis.call('SRANDMEMBER', K.dependencies .. id)
      if parent and redis.call('EXISTS', K.task .. parent) == 0 then cancel_child(id, reason(parent)) end
    end
  end
end

for _, list in ipairs({K.pending, K.pending_high, K.dead_letter}) do patrol_list(list) end
for _, zset in ipairs({K.parked, K.processing, K.delayed, K.waiting, K.finished}) do patrol_zset(zset) end
for _, id in ipairs(redis.call('LRANGE', K.unreadable, 0, sample - 1)) do -- somebody has looked at it and deleted it
  if redis.call('EXISTS', K.task .. id) == 0 then
    redis.call('LREM', K.unreadable, 0, id)
    drop(id)
  end
end

redis.call('SET', K.maintained, more == 1 and clock - interval or clock)
return {more, due, recovered, dead, strays, deleted, outlived}
