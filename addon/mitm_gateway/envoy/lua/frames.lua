-- AWS's binary event stream, in which Bedrock responds: total length, length of the headers, a checksum of these two,
-- headers, payload, checksum, all big endian. Checksums are not verified.

local frames = {}

frames.PRELUDE = 12
local CHECKSUM, BYTES, TEXT = 4, 6, 7

local function number_at(data, at, size)
  local number = 0
  for place = at, at + size - 1 do number = number * 256 + data:byte(place) end
  return number
end

-- Return the size of the frame at `at`: 0 for an invalid one, nil where its start is not complete.
function frames.size_at(data, at)
  if #data - at + 1 < frames.PRELUDE then return nil end
  local size, headers = number_at(data, at, 4), number_at(data, at + 4, 4)
  local is_valid = size <= CONSTANTS.max_frame and frames.PRELUDE + headers <= size - CHECKSUM
  return is_valid and size or 0
end

-- Return the text headers between two places.
local function headers_in(data, at, stop)
  local found = {}
  while at <= stop do
    local name_end = at + data:byte(at)
    local name, kind = data:sub(at + 1, name_end), data:byte(name_end + 1)
    at = name_end + 2
    if kind == BYTES or kind == TEXT then
      if at + 1 > stop then return found end
      local value_end = at + 1 + number_at(data, at, 2)
      if kind == TEXT then found[name] = data:sub(at + 2, math.min(value_end, stop)) end
      at = value_end + 1
    elseif CONSTANTS.frame_values[kind] then
      at = at + CONSTANTS.frame_values[kind]
    else
      return found
    end
  end
  return found
end

local KEYS, KINDS = { bytes = true, type = true }, { exception = true, error = true }

-- Return the event in the frame at `at` as JSON: the model's event or an error; nil where there is none.
function frames.event(data, at, size)
  local payload_at = at + frames.PRELUDE + number_at(data, at + 4, 4)
  local headers = headers_in(data, at + frames.PRELUDE, payload_at - 1)
  local payload = data:sub(payload_at, at + size - 1 - CHECKSUM)
  local is_object, found = pcall(json.fields, payload, KEYS)
  if KINDS[headers[":message-type"]] then
    if is_object and found.type then return '{"error": ' .. payload .. "}" end
    local kind = headers[":exception-type"] or headers[":error-code"] or "error"
    return '{"error": {"type": ' .. escapes.quoted(kind) .. "}}"
  end
  local wrapped = is_object and found.bytes and escapes.decoded(found.bytes:sub(2, -2))
  return wrapped and keys.from_base64(wrapped) or payload
end
