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

local begins = text.begins

-- Return the kind of a body that begins like this; nil if more bytes are necessary to tell.
function kinds.of(content_type, start, is_whole)
  local kind = declared(content_type)
  if kind == "frames" then return kind end
  local at = begins(start, BOM) and 4 or 1
  while at <= #start and BLANKS[start:byte(at)] do at = at + 1 end
  local rest = start:sub(at)
  local first = rest:sub(1, 1)
  if first == "{" or first == "[" then return "json" end
  local is_open = rest == "" or begins(BOM, rest)
  for _, field in ipairs(CONSTANTS.event_fields) do
    if begins(rest, field) then return "sse" end
    is_open = is_open or begins(field, rest)
  end
  if is_open and not is_whole then return nil end
  return kind
end
