-- Reads tasks without their payloads, which may be large. Changes nothing.
-- KEYS[..] -> the tasks' documents
-- ARGV[1]  -> bytes that nearly always hold a document's header
-- Returns  the documents with null for the payload; those that are gone are left out.

local SPLIT, headers = ',"data":', {}
for _, key in ipairs(KEYS) do
  local text = redis.call('GETRANGE', key, 0, ARGV[1] - 1)
  local at = string.find(text, SPLIT, 1, true)
  if not at and text ~= '' then
    text = redis.call('GET', key)
    at = string.find(text, SPLIT, 1, true)
  end
  if at then headers[#headers + 1] = string.sub(text, 1, at - 1) .. SPLIT .. 'null}' end
end
return headers
