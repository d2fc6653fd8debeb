-- Removes the registration of a worker that stops, unless another has taken its name meanwhile.
-- ARGV[1]  -> worker id
-- ARGV[2]  -> its instance
-- Returns  nothing.

local text = redis.call('GET', K.worker .. ARGV[1])
if text and cjson.decode(text).instance == ARGV[2] then
  redis.call('DEL', K.worker .. ARGV[1])
  redis.call('SREM', K.workers, ARGV[1])
end
