-- What one would write by hand: the key, the model's name and its way back, without looking at anything else.
local FROM, TO = '"model":"ASKED"', '"model":"SENT"'

local function swapped(text, from, to)
  local first, last = text:find(from, 1, true)
  if first then return text:sub(1, first - 1) .. to .. text:sub(last + 1) end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  headers:remove("x-api-key")
  headers:replace("authorization", "Bearer KEY")
  local body = handle:body()
  local text = body and swapped(body:getBytes(0, body:length()), FROM, TO)
  if not text then return end
  body:setBytes(text)
  handle:streamInfo():dynamicMetadata():set("by_hand", "swapped", true)
end

function envoy_on_response(handle)
  if not handle:streamInfo():dynamicMetadata():get("by_hand") then return end
  handle:headers():remove("content-length")
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    local text = size > 0 and swapped(chunk:getBytes(0, size), TO, FROM)
    if text then chunk:setBytes(text) end
  end
end
