-- A response: the client's model name, and the counts for the access log.

local NOTES = CONSTANTS.notes
local write_asked = escapes.new_writer()

-- Return whether a response has a body that is not compressed.
local function is_readable(headers)
  local status = headers:get(":status")
  if status ~= "200" and (status:sub(1, 1) ~= "2" or status == "204") then return false end
  local encoding = headers:get("content-encoding")
  return not encoding or encoding:lower() == "identity"
end

-- Return the function that renames models on the way back, nil if the rule renamed none.
local function rename_for(noted)
  if noted.asked_for then
    return restore.by_name(function(sent)
      local asked = noted.asked_for[escapes.quoted(sent)]
      return asked and escapes.decoded(asked:sub(2, -2))
    end)
  end
  if noted.earlier then -- results of an earlier request
    local map = LISTENER.rules[noted.earlier].models
    return restore.by_name(function(sent) return model_map.asked_for(map, sent) end)
  end
  -- a name that is sent as a resource comes back whole
  local keeps_resource = CONSTANTS.responses[noted.api or 1].has_resource_names
    and not text.has(noted.model_sent or "", "models/")
  return noted.model and not noted.stays and restore.always(noted.asked or write_asked(noted.model), keeps_resource)
end

-- Return the editor for a body of this kind, nil if it has no models.
local function editor_for(kind, rename, noted)
  local api = CONSTANTS.responses[noted.api or 1]
  if kind == "sse" then return restore.sse(rename, CONSTANTS.response_trees[api.sse]) end
  if kind ~= "json" then return nil end
  local tree = CONSTANTS.response_trees[api.json]
  return api.is_lines and restore.json_lines(rename, tree) or restore.json(rename, tree)
end

-- A stream can fail after its good status; the log shows that as a refusal.
local function note_usage(handle, found, keeps_model)
  local notes = handle:streamInfo():dynamicMetadata()
  if found.error then notes:set(NOTES, "refusal", "upstream: " .. logged.masked(found.error)) end
  if found.model and not keeps_model then notes:set(NOTES, "model", logged.masked(found.model)) end
  for _, name in ipairs(CONSTANTS.logged_tokens) do
    if found[name] then notes:set(NOTES, name, found[name]) end
  end
end

-- Note the findings of a reader, and whether the end of its stream is still missing.
local function note(handle, reader, found, keeps_model)
  if not found then return end
  note_usage(handle, found, keeps_model)
  if reader:is_open() ~= reader.was_open then
    reader.was_open = reader:is_open()
    handle:streamInfo():dynamicMetadata():set(NOTES, "is_open", reader.was_open)
  end
end

function envoy_on_response(handle)
  local noted = handle:streamInfo():dynamicMetadata():get(NOTES) or {}
  local rename = rename_for(noted)
  if not (rename or LISTENER.tokens) then return end
  local headers = handle:headers()
  if not is_readable(headers) then return end
  local content_type = headers:get("content-type") or ""
  if text.begins_with_any(kinds.media_type(content_type), CONSTANTS.never_json) then return end
  if rename then headers:remove("content-length") end -- the name's length differs
  local kind, restorer, reader
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    local received = size > 0 and chunk:getBytes(0, size) or ""
    if not kind and size > 0 then -- the first chunk decides: Envoy does not mark the last one, until which it could wait
      kind = kinds.of(content_type, received)
      restorer = rename and editor_for(kind, rename, noted)
      reader = LISTENER.tokens and (usage[kind] or usage.json)()
    end
    if reader then note(handle, reader, reader:feed(received), noted.model) end
    if restorer then
      local passed = size > 0 and restorer:feed(received) or restorer:flush()
      if passed ~= received then chunk:setBytes(passed) end
    end
  end
  if reader then note(handle, reader, reader:finish(), noted.model) end
end
