-- A worker's heartbeat: registers the worker (again, if it was taken for lost), extends the leases it still owns.
-- ARGV[1]  -> worker id
-- ARGV[2]  -> the worker as JSON
-- ARGV[3]  -> milliseconds until the registration expires
-- ARGV[4]  -> the instance whose name this worker takes over, because its process is dead; or ''
-- ARGV[..] -> two for each task that it holds: id, attempt
-- Returns  {1, the ids that it no longer owns}; or {0, the registration of another worker that has this name}.

local worker, lost, clock = ARGV[1], {}, now()
local info, text = cjson.decode(ARGV[2]), redis.call('GET', K.worker .. worker)
local old = text and cjson.decode(text)
if old and old.instance ~= info.instance and old.instance ~= ARGV[4] then return {0, text} end
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
    lost[#lost + 1] = ARGV[i]
  end
end
return {1, lost}
