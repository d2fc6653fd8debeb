-- A worker's heartbeat: registers the worker (again, if it was taken for lost), extends the leases it still owns.
-- ARGV[1]  -> worker id
-- ARGV[2]  -> the worker as JSON
-- ARGV[3]  -> milliseconds until the registration expires
-- ARGV[4]  -> the instance whose name this worker takes over, because its process is dead; or ''
-- ARGV[..] -> two for each task that it holds: id, attempt
-- Returns  {1, id…}: those that it no longer owns. {0, host, process id, instance}: another worker has this name.

local worker, answer, clock = ARGV[1], {1}, now()
local info, old = cjson.decode(ARGV[2]), registered(worker)
if old and old.instance ~= info.instance and old.instance ~= ARGV[4] then
  return {0, old.host, old.pid, old.instance}
end
info.started_at = old and old.instance == info.instance and old.started_at or clock
info.last_heartbeat = clock
local types = info.types or {}
if #types == 0 then info.types = nil end -- cjson would make it an object
redis.call('SET', K.worker .. worker, cjson.encode(info), 'PX', ARGV[3])
redis.call('SADD', K.workers, worker)
for _, type in ipairs(types) do redis.call('ZADD', K.types, clock + ARGV[3] / 1000, type) end
for i = 5, #ARGV, 2 do
  local h = header(ARGV[i])
  if owned(h, worker, ARGV[i + 1]) then
    redis.call('ZADD', K.processing, clock + S.lease, h.id)
  else
    answer[#answer + 1] = ARGV[i]
  end
end
return answer
