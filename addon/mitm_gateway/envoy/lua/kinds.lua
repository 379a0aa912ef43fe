-- The kind of a response's body: its first bytes decide, because upstreams mislabel streams, else its Content-Type.

local kinds = {}

local BOM = "\239\187\191"
local BLANKS = { [9] = true, [10] = true, [13] = true, [32] = true }

-- Return the media type of a Content-Type.
function kinds.media_type(content_type)
  local stop = content_type:find(";", 1, true)
  return text.trimmed(stop and content_type:sub(1, stop - 1) or content_type):lower()
end

local function declared(content_type)
  local kind = kinds.media_type(content_type)
  if kind == "text/event-stream" then return "sse" end
  if kind == CONSTANTS.frames_type then return "frames" end
  return (kind == "application/json" or kind:sub(-5) == "+json") and "json" or "other"
end

-- Return the kind of a body that begins like this.
function kinds.of(content_type, start)
  local kind = declared(content_type)
  if kind == "frames" then return kind end
  local at = text.begins(start, BOM) and 4 or 1
  while at <= #start and BLANKS[start:byte(at)] do at = at + 1 end
  local first = start:sub(at, at)
  if first == "{" or first == "[" then return "json" end
  return text.begins_with_any(start:sub(at), CONSTANTS.event_fields) and "sse" or kind
end
