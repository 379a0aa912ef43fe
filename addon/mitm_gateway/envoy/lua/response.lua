-- A response: the client's model name, and the counts for the access log.

local NOTES = CONSTANTS.notes
local write_asked = escapes.new_writer()

local KINDS = { ["application/json"] = "json", ["text/event-stream"] = "sse" }

-- Return `json` or `sse`; nil for a response that cannot be read.
local function kind_of(headers)
  local status = headers:get(":status")
  if status ~= "200" and (status:sub(1, 1) ~= "2" or status == "204") then return nil end
  local encoding = headers:get("content-encoding")
  if encoding and encoding:lower() ~= "identity" then return nil end
  local given = headers:get("content-type") or ""
  if KINDS[given] then return KINDS[given] end
  given = given:match("^%s*([^;%s]*)"):lower()
  return KINDS[given] or (given:sub(-5) == "+json" and "json") or nil
end

-- A stream can fail after its good status. The log shows that as a refusal, as it has no other key for an outcome.
local function note_usage(handle, found)
  if not found then return end
  local notes = handle:streamInfo():dynamicMetadata()
  if found.error then notes:set(NOTES, "refusal", "upstream: " .. found.error) end
  for _, name in ipairs({ "model", "input_tokens", "output_tokens", "cache_read_tokens" }) do
    if found[name] then notes:set(NOTES, name, found[name]) end
  end
end

function envoy_on_response(handle)
  local noted = handle:streamInfo():dynamicMetadata():get(NOTES)
  local asked = noted and not noted.stays and noted.model
  if not noted or not (asked or LISTENER.tokens) then return end
  local headers = handle:headers()
  local kind = kind_of(headers)
  if not kind then return end
  local restorer = asked and restore[kind](write_asked(asked))
  local reader = LISTENER.tokens and usage[kind](not noted.model)
  if restorer then headers:remove("content-length") end -- the name's length differs
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    local received = size > 0 and chunk:getBytes(0, size) or ""
    if reader then note_usage(handle, reader:feed(received)) end
    if restorer then
      local passed = size > 0 and restorer:feed(received) or restorer:flush()
      if passed ~= received then chunk:setBytes(passed) end
    end
  end
  if reader then note_usage(handle, reader:finish()) end
end
