-- Reads tasks without their payloads, which may be large. Changes nothing.
-- KEYS[..] -> the tasks' documents
-- ARGV[1]  -> bytes that nearly always hold a document's header
-- Returns  the documents with null for the payload; nil for those that are gone.

local SPLIT, headers = ',"data":', {}
for i, key in ipairs(KEYS) do
  local size, text, at = ARGV[1], nil, nil
  repeat
    text = redis.pcall('GETRANGE', key, 0, size - 1)
    if type(text) == 'table' then text = '' end -- an error: the key is no string
    at, size = string.find(text, SPLIT, 1, true), size * 8
  until at or #text < size / 8
  headers[i] = at and string.sub(text, 1, at - 1) .. SPLIT .. 'null}' or false
end
return headers
