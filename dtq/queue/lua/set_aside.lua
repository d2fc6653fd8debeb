-- Sets tasks aside whose documents no program can read: wherever they are, they go to K.unreadable. The documents stay.
-- ARGV[..] -> ids

for _, id in ipairs(ARGV) do
  local found = redis.call('ZREM', K.processing, id) + redis.call('ZREM', K.delayed, id)
    + redis.call('ZREM', K.waiting, id) + redis.call('ZREM', K.finished, id) + redis.call('LREM', K.pending, 1, id)
    + redis.call('LREM', K.pending_high, 1, id) + redis.call('LREM', K.dead_letter, 1, id)
  if found > 0 then redis.call('LPUSH', K.unreadable, id) end
end
