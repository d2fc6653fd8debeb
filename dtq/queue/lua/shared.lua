-- Functions for all transitions. Each script begins with K (key names, from keys.py), S (settings) and this text.
-- A task's document is {header,"data":...} or {header,"data":...,"result":...}. Only the header, which dtq wrote
-- itself, goes through cjson: the rest is other people's JSON, which cjson would change ([] becomes {}).
-- No string in the header can contain SPLIT: quotes inside JSON strings are escaped.

local SPLIT = ',"data":'
local FIELDS = {'id', 'type', 'priority', 'status', 'attempts', 'retry_count', 'crashes', 'max_retries', 'timeout',
  'delay', 'worker_id', 'created_at', 'started_at', 'completed_at', 'due', 'duration', 'error', 'history',
  'depends_on', 'fingerprint', 'traceparent', 'submitted_by'}
local HISTORY = 50 -- entries kept

-- Seconds by Redis's clock, to 0.1 ms: 14 digits, as many as cjson keeps.
local function now()
  local t = redis.call('TIME')
  return t[1] + math.floor(t[2] / 100) / 10000
end

local function split(document)
  local at = string.find(document, SPLIT, 1, true)
  if not at then return nil end
  return cjson.decode(string.sub(document, 1, at - 1) .. '}'), string.sub(document, at)
end

local function read(id)
  local document = redis.call('GET', K.task .. id)
  if not document then return nil end
  return split(document)
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

local function count(name, n) redis.call('HINCRBY', K.counters, name, n or 1) end

-- One member only: it wakes one idle worker, whose claim wakes the next while work remains.
local function wake() redis.call('ZADD', K.wake, 0, 'work') end

local function queue_of(h)
  if h.priority == 'high' then return K.pending_high end
  return K.pending
end

local function enqueue(h, tail, front)
  h.status, h.worker_id, h.due = 'pending', nil, nil
  write(h, tail)
  redis.call(front and 'RPUSH' or 'LPUSH', queue_of(h), h.id)
  wake()
end

local function postpone(h, tail, status, due)
  h.status, h.worker_id, h.due = status, nil, due
  write(h, tail)
  redis.call('ZADD', K.delayed, due, h.id)
end

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

-- A finished task expires after S.result_ttl, but not while a child may still need its result.
local function expire(id)
  if redis.call('SCARD', K.dependents .. id) == 0 and redis.call('ZSCORE', K.finished, id) then
    redis.call('EXPIRE', K.task .. id, S.result_ttl)
  end
end

local function finish(h, tail, status)
  h.status, h.completed_at, h.due = status, h.completed_at or now(), nil
  write(h, tail)
  redis.call('ZADD', K.finished, h.completed_at, h.id)
  expire(h.id)
  for _, parent in ipairs(h.depends_on or {}) do
    redis.call('SREM', K.dependents .. parent, h.id)
    expire(parent)
  end
end

-- Cancels all tasks that depend on a task which will never be completed, directly or through others.
local function cancel_dependents(id)
  local roots = {id}
  while #roots > 0 do
    for _, child in ipairs(redis.call('SMEMBERS', K.dependents .. table.remove(roots))) do
      local h, tail = read(child)
      if redis.call('ZREM', K.waiting, child) == 1 and h then
        h.error = 'cancelled because it depends on ' .. id
        redis.call('DEL', K.dependencies .. child)
        finish(h, tail, 'cancelled')
        count('cancelled')
        roots[#roots + 1] = child
      end
    end
  end
end
