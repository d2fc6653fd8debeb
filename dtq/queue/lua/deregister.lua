-- Removes the registration of a worker that stops, unless another has taken its name meanwhile.
-- ARGV[1]  -> worker id
-- ARGV[2]  -> its instance
-- Returns  nothing.

local worker = registered(ARGV[1])
if worker and worker.instance == ARGV[2] then
  redis.call('DEL', K.worker .. ARGV[1])
  redis.call('SREM', K.workers, ARGV[1])
end
