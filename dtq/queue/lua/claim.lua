-- Claims pending tasks for a worker and starts their leases: high before normal, oldest first. After S.high_burst
-- high tasks in a row while a normal one waited, a normal one is next. A task that has already lost a worker is
-- claimed alone: if it kills the next worker too, no other task counts a crash.
-- A task whose type the worker does not know is parked for one that does. Of the types that it knows, a worker takes
-- the parked tasks first: they are older than those in the queues.
-- ARGV[1]  -> worker id
-- ARGV[2]  -> how many tasks at most
-- ARGV[..] -> the types that it knows; none: it takes what is in the queues, whatever it is
-- Returns  their documents, in the order to run them.

local worker, n, knows, picky = ARGV[1], tonumber(ARGV[2]), {}, #ARGV > 2
local parked = {high = {}, normal = {}} -- the types of which there may be parked tasks
local some = redis.call('ZCARD', K.parked) > 0
for i = 3, #ARGV do
  knows[ARGV[i]] = true
  if some then parked.high[ARGV[i]], parked.normal[ARGV[i]] = true, true end
end
local before = tonumber(redis.call('GET', K.high_streak) or 0)
local started, streak, parkings, documents = now(), before, 0, {}

-- The member of the oldest parked task that this worker knows.
local function oldest_parked(priority)
  local oldest
  for type in pairs(parked[priority]) do
    local member = first_parked(type, priority)
    spend(0.1)
    if not member then
      parked[priority][type] = nil
    elseif not oldest or parked_turn(member) < parked_turn(oldest) then
      oldest = member
    end
  end
  return oldest
end

-- Takes the next id of this priority; the second value is its member, if it was parked.
local function take(priority)
  local member = oldest_parked(priority)
  if not member then return redis.call('RPOP', QUEUES[priority]) end
  redis.call('ZREM', K.parked, member)
  return parked_id(member), member
end

local function next_id()
  local normal_turn = S.high_burst > 0 and streak >= S.high_burst
  if not normal_turn then
    local id, member = take('high')
    if id then
      local waits = redis.call('LLEN', K.pending) > 0 or oldest_parked('normal')
      streak = waits and streak + 1 or 0
      return id, member
    end
  end
  streak = 0
  local id, member = take('normal')
  if id or not normal_turn then return id, member end
  return take('high')
end

local function start(h, tail)
  h.status, h.worker_id, h.started_at, h.attempts, h.parked = 'processing', worker, started, h.attempts + 1, nil
  documents[#documents + 1] = write(h, tail)
  redis.call('ZADD', K.processing, started + S.lease, h.id)
end

while #documents < n and not exhausted() do
  local last = streak
  local id, member = next_id()
  if not id then break end
  local h, tail = read(id)
  if not h then
    drop(id, h)
  elseif h.status == 'pending' and picky and not knows[h.type] then
    park(h, tail, turn(started * 10000, parkings))
    parkings, streak = parkings + 1, last
  elseif h.status == 'pending' and h.crashes > 0 and #documents > 0 then
    if member then redis.call('ZADD', K.parked, 0, member) else redis.call('RPUSH', QUEUES[h.priority], id) end
    streak = last -- its turn is still to come
    break
  elseif h.status == 'pending' then -- else somebody has put its id into the queue by hand
    start(h, tail)
    if h.crashes > 0 then break end
  end
end

if streak ~= before then redis.call('SET', K.high_streak, streak) end
local left = redis.call('LLEN', K.pending) + redis.call('LLEN', K.pending_high) > 0
if left or parkings > 0 or oldest_parked('high') or oldest_parked('normal') then wake() end
return documents
