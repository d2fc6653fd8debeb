-- Reads tasks without their payloads, which may be large. Changes nothing.
-- KEYS[..] -> the tasks' documents
-- ARGV[1]  -> bytes that nearly always hold a document's header
-- Returns  the documents with null for the payload; nil for those that are gone.

local SPLIT, headers = ',"data":', {}
for i, key in ipairs(KEYS) do
  local text = redis.call('GETRANGE', key, 0, ARGV[1] - 1)
  local at = string.find(text, SPLIT, 1, true)
  if not at and text ~= '' then
    text = redis.call('GET', key)
    at = string.find(text, SPLIT, 1, true)
  end
  headers[i] = at and string.sub(text, 1, at - 1) .. SPLIT .. 'null}' or false
end
return headers
