-- Sets tasks aside whose documents no program can read: wherever they are, they go to K.unreadable. The documents stay.
-- ARGV[..] -> ids
-- Returns  nothing.

for _, id in ipairs(ARGV) do
  local found = 0
  for _, zset in ipairs({K.processing, K.delayed, K.waiting, K.finished}) do
    found = found + redis.call('ZREM', zset, id)
  end
  for _, list in ipairs({K.pending, K.pending_high, K.dead_letter}) do
    if found == 0 then found = redis.call('LREM', list, 1, id) end
  end
  if found > 0 then redis.call('LPUSH', K.unreadable, id) end
end
