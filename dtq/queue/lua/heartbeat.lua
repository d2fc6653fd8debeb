-- A worker's heartbeat: registers the worker (again, if it was taken for lost), extends the leases it still owns.
-- ARGV[1]  -> worker id
-- ARGV[2]  -> the worker as JSON
-- ARGV[3]  -> milliseconds until the registration expires
-- ARGV[..] -> two for each task that it holds: id, attempt
-- Returns  the ids that it no longer owns.

local worker, lost, clock = ARGV[1], {}, now()
local info, old = cjson.decode(ARGV[2]), redis.call('GET', K.worker .. worker)
info.started_at = old and cjson.decode(old).started_at or clock
info.last_heartbeat = clock
redis.call('SET', K.worker .. worker, cjson.encode(info), 'PX', ARGV[3])
redis.call('SADD', K.workers, worker)
for i = 4, #ARGV, 2 do
  local h = read(ARGV[i])
  if owned(h, worker, ARGV[i + 1]) then
    redis.call('ZADD', K.processing, clock + S.lease, h.id)
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
