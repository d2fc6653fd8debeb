-- Functions for all transitions. Each script begins with K (key names, from keys.py), S (settings) and this text.
-- A task's document is {header,"data":...} or {header,"data":...,"result":...}. Only the header, which dtq wrote
-- itself, goes through cjson: the rest is other people's JSON, which cjson would change ([] becomes {}).
-- No string in the header can contain SPLIT: quotes inside JSON strings are escaped.

local SPLIT = ',"data":'
local FIELDS = {'id', 'type', 'priority', 'status', 'attempts', 'retry_count', 'crashes', 'max_retries', 'timeout',
  'delay', 'worker_id', 'created_at', 'started_at', 'completed_at', 'due', 'duration', 'error', 'history',
  'depends_on', 'fingerprint', 'traceparent', 'submitted_by', 'parked'}
local HISTORY = 50 -- entries kept
local HEADER = 8192 -- bytes that nearly always hold a header

-- Seconds by Redis's clock, to 0.1 ms: 14 digits, as many as cjson keeps.
local function now()
  local t = redis.call('TIME')
  return t[1] + math.floor(t[2] / 100) / 10000
end

local function count(name, n) redis.call('HINCRBY', K.counters, name, n or 1) end

---------------------------------------------------------------------------------------------------- bounded work
-- Redis does one thing at a time: a script that took long would stop everybody. So each counts its work on what
-- is stored, 1 for a document or a link and 1 for each 32 KiB of a document; when it has done S.work, it leaves the
-- rest to `maintain`, which goes on.

local work = 0
local function spend(units) work = work + units end
local function exhausted() return work >= S.work end

---------------------------------------------------------------------------------------------------- documents

local KINDS = {id = 'string', type = 'string', priority = 'string', status = 'string', attempts = 'number',
  retry_count = 'number', crashes = 'number', worker_id = 'string', created_at = 'number', started_at = 'number',
  completed_at = 'number', due = 'number', delay = 'number', error = 'string', history = 'table',
  depends_on = 'table', fingerprint = 'string', parked = 'string'}
local NEEDED = {'type', 'attempts', 'retry_count', 'crashes', 'created_at'}
local QUEUES = {high = K.pending_high, normal = K.pending}

-- Whether the scripts can work with this header. Somebody may have written it by hand.
local function sound(h, id)
  for name, value in pairs(h) do
    if value == cjson.null then h[name] = nil
    elseif KINDS[name] and type(value) ~= KINDS[name] then return false end
  end
  for _, name in ipairs(NEEDED) do
    if h[name] == nil then return false end
  end
  for _, parent in ipairs(h.depends_on or {}) do
    if type(parent) ~= 'string' then return false end
  end
  local last = h.history and h.history[#h.history]
  if h.history and not (type(last) == 'table' and type(last.ended_at) == 'number') then return false end
  if h.status == 'processing' and not (h.worker_id and h.started_at) then return false end
  return h.id == id and QUEUES[h.priority] ~= nil
end

-- A document's header, and the rest of it; nil if the header is no JSON object.
local function split(document)
  local at = string.find(document, SPLIT, 1, true)
  if not at then return nil end
  local fine, h = pcall(cjson.decode, string.sub(document, 1, at - 1) .. '}')
  if fine then return h, string.sub(document, at) end
end

local function checked(id, document)
  local h, tail = split(document)
  if h and sound(h, id) then return h, tail end
  return false
end

-- A task's header and the rest of its document. nil: there is no such task; false: nobody can read it.
local function read(id)
  local document = redis.pcall('GET', K.task .. id) or ''
  if type(document) == 'table' then return false end -- an error: the key is no string
  spend(1 + #document / 32768)
  if document ~= '' then return checked(id, document) end
end

-- The same without the rest, which may be large: it is not even fetched.
local function header(id)
  local size, text = HEADER, nil
  repeat
    text = redis.pcall('GETRANGE', K.task .. id, 0, size - 1)
    spend(1)
    if type(text) == 'table' then return false end
    if text == '' then return nil end
    size = size * 8
  until string.find(text, SPLIT, 1, true) or #text < size / 8
  return (checked(id, text))
end

local function write(h, tail)
  local parts = {}
  for _, name in ipairs(FIELDS) do
    if h[name] ~= nil then parts[#parts + 1] = '"' .. name .. '":' .. cjson.encode(h[name]) end
  end
  local document = '{' .. table.concat(parts, ',') .. tail
  redis.call('SET', K.task .. h.id, document)
  return document
end

-- How the worker of this name describes itself; nil if none is registered, or somebody has written it by hand.
local function registered(worker)
  local fine, info = pcall(cjson.decode, redis.pcall('GET', K.worker .. worker) or '')
  local sound = fine and type(info) == 'table' and type(info.instance) == 'string' and type(info.host) == 'string'
  if sound and type(info.pid) == 'number' then return info end
end

---------------------------------------------------------------------------------------------------- pending

-- One member only: it wakes one idle worker, whose claim wakes the next while work remains.
local function wake() redis.call('ZADD', K.wake, 0, 'work') end

-- K.parked is one sorted set for the tasks of all types that a worker did not know. All its scores are 0, so that its
-- members are in alphabetical order: 40 characters for the type, 1 for the priority, 20 for the task's turn, then its
-- id. So the first task of a type is found at once, however many others there are.
local function parked_prefix(type, priority) return redis.sha1hex(type) .. (priority == 'high' and 'h' or 'n') end
local function parked_member(h) return parked_prefix(h.type, h.priority) .. h.parked .. h.id end
local function parked_turn(member) return string.sub(member, 42, 61) end
local function parked_id(member) return string.sub(member, 62) end

local function first_parked(type, priority)
  local first = '[' .. parked_prefix(type, priority)
  return redis.call('ZRANGEBYLEX', K.parked, first, first .. '\255', 'LIMIT', 0, 1)[1]
end

-- A turn is a time in units of 0.1 ms, and a number that keeps those in order that one script parks.
local function turn(time, nth) return string.format('%015.0f%05d', time, nth) end

local function park(h, tail, its_turn)
  h.parked = its_turn
  write(h, tail)
  redis.call('ZADD', K.parked, 0, parked_member(h))
end

-- To the end of its queue; or to its front, and before the parked tasks of its type.
local function enqueue(h, tail, front)
  h.status, h.worker_id, h.due, h.parked = 'pending', nil, nil, nil
  local first = front and first_parked(h.type, h.priority)
  if first then
    park(h, tail, turn(string.sub(parked_turn(first), 1, 15) - 1, 0))
  else
    write(h, tail)
    redis.call(front and 'RPUSH' or 'LPUSH', QUEUES[h.priority], h.id)
  end
  wake()
end

local function postpone(h, tail, status, due)
  h.status, h.worker_id, h.due = status, nil, due
  write(h, tail)
  redis.call('ZADD', K.delayed, due, h.id)
end

---------------------------------------------------------------------------------------------------- attempts

local function owned(h, worker, attempt)
  return h and h.status == 'processing' and h.worker_id == worker and h.attempts == tonumber(attempt)
end

local function remember(h, ended, outcome, message)
  h.history = h.history or {}
  table.insert(h.history, {attempt = h.attempts, worker = h.worker_id, started_at = h.started_at,
    ended_at = ended, outcome = outcome, error = message})
  if #h.history > HISTORY then table.remove(h.history, 1) end
  h.error = message
end

local function bury(h, tail)
  h.status, h.worker_id = 'failed', nil
  write(h, tail)
  redis.call('LPUSH', K.dead_letter, h.id)
  count('dead_lettered')
end

---------------------------------------------------------------------------------------------------- ended tasks

local ended_here = {} -- by this script: ids of tasks with children
local function has_ended(h) return h.status == 'completed' or h.status == 'cancelled' end

-- Takes an ended task out of the lists of ended tasks.
local function forget(id)
  if redis.call('ZREM', K.finished, id) == 1 then
    redis.call('ZREM', K.completed_at, id)
    redis.call('ZREM', K.task_times, id)
  end
end

-- A finished task expires after S.result_ttl, but not while a child may still need its result.
local function expire(id)
  if redis.call('ZCARD', K.dependents .. id) == 0 and redis.call('ZSCORE', K.finished, id) then
    redis.call('EXPIRE', K.task .. id, S.result_ttl)
  end
end

local function finish(h, tail, status)
  h.status, h.completed_at, h.due = status, h.completed_at or now(), nil
  write(h, tail)
  redis.call('ZADD', K.finished, h.completed_at, h.id)
  if redis.call('ZCARD', K.dependents .. h.id) > 0 then
    redis.call('SADD', K.unsettled, h.id)
    table.insert(ended_here, h.id)
  else
    redis.call('EXPIRE', K.task .. h.id, S.result_ttl)
  end
  for _, parent in ipairs(h.depends_on or {}) do
    redis.call('ZREM', K.dependents .. parent, h.id)
    expire(parent)
    spend(1)
  end
end

---------------------------------------------------------------------------------------------------- children

-- Lets go of an id that was taken out of its place because of its document: there is none (h is nil), so that its
-- children will never be free; or nobody can read it (h is false), and somebody has to look at it.
local function drop(id, h)
  if h == false then
    redis.call('LPUSH', K.unreadable, id)
    return
  end
  for _, parent in ipairs(redis.call('SMEMBERS', K.dependencies .. id)) do
    redis.call('ZREM', K.dependents .. parent, id)
    spend(1)
  end
  redis.call('DEL', K.dependencies .. id)
  if redis.call('EXISTS', K.dependents .. id) == 1 then redis.call('SADD', K.unsettled, id) end -- see maintain.lua
end

-- A parent of this waiting task is completed: if it was the last one, the task is free.
local function release_child(id, parent)
  redis.call('SREM', K.dependencies .. id, parent)
  if redis.call('EXISTS', K.dependencies .. id) == 0 and redis.call('ZREM', K.waiting, id) == 1 then
    local h, tail = read(id)
    if not h then drop(id, h)
    elseif h.due and h.due > now() then postpone(h, tail, 'scheduled', h.due)
    else enqueue(h, tail) end
  end
end

local BECAUSE = 'cancelled because it depends on '

-- A parent of this waiting task will never be completed.
local function cancel_child(id, why)
  if redis.call('ZREM', K.waiting, id) == 0 then return end
  local h, tail = read(id)
  if not h then return drop(id, h) end
  redis.call('DEL', K.dependencies .. id)
  h.error = why
  finish(h, tail, 'cancelled')
  count('cancelled')
end

-- Why the children of a parent are cancelled: it was cancelled itself, for the same reason, or it is gone.
local function reason(parent, h)
  if h and h.error and string.find(h.error, BECAUSE, 1, true) == 1 then return h.error end
  return BECAUSE .. parent .. (h and '' or ', which is gone')
end

-- Tells children, the oldest first, that their parent has ended or is gone.
local function settle(parent)
  local h, children = header(parent), K.dependents .. parent
  while h == nil or (h and has_ended(h)) do
    local child, created = unpack(redis.call('ZRANGEBYSCORE', children, '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 1))
    if not child then break end
    if exhausted() then return end
    redis.call('ZADD', children, -created, child)
    spend(1)
    if h and h.status == 'completed' then release_child(child, parent)
    else cancel_child(child, reason(parent, h)) end
  end
  redis.call('SREM', K.unsettled, parent)
  if h == nil then redis.call('UNLINK', children) end -- there is no result that a child could need
end

-- Tells the children of the tasks that this script has ended, and their children, as far as its bound allows.
local function settle_here()
  while #ended_here > 0 and not exhausted() do settle(table.remove(ended_here, 1)) end
end

---------------------------------------------------------------------------------------------------- dead letter

-- Takes tasks out of the dead letter, and calls `decide` for each. Returns how many ids it has looked at, as far as its
-- bound allows, and those that were there.
local function take_dead(decide)
  local found = {0}
  for _, id in ipairs(ARGV) do
    if exhausted() then break end
    found[1] = found[1] + 1
    spend(1)
    if redis.call('LREM', K.dead_letter, -1, id) == 1 then
      local h, tail = read(id)
      if not h then drop(id, h)
      elseif h.status == 'failed' then
        decide(h, tail)
        found[#found + 1] = id
      end
    end
  end
  return found
end
