-- The client's keys, found in texts alone: in headers, queries and WebSocket subprotocols.

local keys = {}

local has, trimmed = text.has, text.trimmed

local KEY_NAMES, PLACEHOLDERS = text.set_of(CONSTANTS.key_names), text.set_of(CONSTANTS.placeholders)
local API_KEY_NAMES = text.set_of(CONSTANTS.api_key_names)

local DIGITS = {}
for place = 1, 64 do
  DIGITS[("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):byte(place)] = place - 1
end

-- Decode base64 with its padding; nil if the text is not base64.
function keys.from_base64(encoded)
  local digits = text.without_final(encoded, "=")
  if #encoded % 4 ~= 0 or #encoded - #digits > 2 then return nil end
  local out, bits, count = {}, 0, 0
  for place = 1, #digits do
    local value = DIGITS[digits:byte(place)]
    if not value then return nil end
    bits, count = bits * 64 + value, count + 6
    if count >= 8 then
      count = count - 8
      out[#out + 1] = string.char(math.floor(bits / 2 ^ count))
      bits = bits % 2 ^ count
    end
  end
  return table.concat(out)
end

local function password_in(encoded)
  local decoded = keys.from_base64(encoded)
  local colon = decoded and json.is_utf8(decoded) and decoded:find(":", 1, true)
  return colon and decoded:sub(colon + 1) or ""
end

-- Return a key without its auth scheme, or the password of a Basic one.
function keys.bare_key(value)
  value = trimmed(value)
  local blank = value:find(" ", 1, true) or #value + 1
  local scheme = value:sub(1, blank - 1):lower()
  if scheme == "bearer" or scheme == "token" then return trimmed(value:sub(blank + 1)) end
  if scheme == "basic" then return password_in(value:sub(blank + 1)) end
  return value
end

-- Return whether two texts are equal, in time that depends on the first one's length only.
function keys.equals(key, value)
  local differing = bit.bxor(#key, #value)
  for place = 1, #key do
    differing = bit.bor(differing, bit.bxor(key:byte(place), value:byte(place) or 0))
  end
  return differing == 0
end

-- Return the first of several keys that is usable and no placeholder.
function keys.real_key(candidates)
  for _, key in ipairs(candidates) do
    if not PLACEHOLDERS[key:lower()] and not key:find("[^!-~]") then return key end
  end
end

local function ends_in(name, endings)
  for place = 1, #endings do
    if name:sub(-#endings[place]) == endings[place] then return true end
  end
  return false
end

local function normal_name(name) return (name:gsub("%W+", ""):lower()) end

-- Return whether a header of this name carries a key.
function keys.is_key_name(name)
  name = normal_name(name)
  return KEY_NAMES[name] or ends_in(name, CONSTANTS.key_endings)
end

-- Return whether a header or parameter of this name carries the key of an API.
function keys.is_api_key_name(name)
  name = normal_name(name)
  return API_KEY_NAMES[name] or ends_in(name, CONSTANTS.api_key_endings)
end

-- Return the place where a key begins in a subprotocol, as in `openai-insecure-api-key.KEY`; nil if it has none.
local function key_start(protocol)
  local start = 1
  for _, label in ipairs(text.split(protocol, ".")) do
    start = start + #label + 1
    if keys.is_key_name(label) then return math.min(start, #protocol + 1) end
  end
end

-- Return the subprotocols of a WebSocket's header that have no key, the keys, and the number of subprotocols.
local function read_protocols(value)
  local parts, kept, found, is_key = text.split(value, ","), {}, {}, false
  for _, part in ipairs(parts) do
    local start = is_key and 1 or key_start(part)
    local key = start and trimmed(part:sub(start))
    if not start then kept[#kept + 1] = trimmed(part) elseif key ~= "" then found[#found + 1] = key end
    is_key = not is_key and start == #part + 1 -- the key is behind the name
  end
  return kept, found, #parts
end

-- Return the keys in a Sec-WebSocket-Protocol value.
function keys.websocket_keys(value)
  return (select(2, read_protocols(value)))
end

-- Return a Sec-WebSocket-Protocol value without keys; nil where nothing is left.
function keys.without_websocket_key(value)
  local kept, _, count = read_protocols(value)
  if #kept == count then return value end
  return #kept > 0 and table.concat(kept, ", ") or nil
end

local function names_key_of_query(name)
  return keys.is_key_name(name) and not ends_in(normal_name(name), CONSTANTS.page_token_endings)
end

-- Return whether a parameter's name, in any spelling, is such a name.
local function is_named(pair, is_name)
  if pair == "" then return false end -- of which a hostile query has tens of thousands
  local stop = pair:find("=", 1, true)
  local name = stop and pair:sub(1, stop - 1) or pair
  for _ = 1, CONSTANTS.max_decodings do name = text.unquoted(name) end
  -- Servers that build arrays or C strings from parameters end the name here.
  local start = name:match("^[^%[%z]*")
  return is_name(name) or (#start < #name and is_name(start))
end

-- Return whether a `name=value` of a query carries a key, or the key of an API, in any spelling.
function keys.is_key_parameter(pair) return is_named(pair, names_key_of_query) end
function keys.is_api_key_parameter(pair) return is_named(pair, keys.is_api_key_name) end

-- Return the value of a parameter decoded and, if that differs, as written.
function keys.parameter_values(pair)
  local written = pair:match("=(.*)") or ""
  local decoded = head.query_text(written)
  return decoded == written and { decoded } or { decoded, written }
end

-- Return the values of the parameters that carry keys in a query with its question mark.
function keys.query_keys(query, is_slot)
  local found = {}
  if not has(query, "=") then return found end
  for _, pair in ipairs(text.split((query:sub(2):gsub(";", "&")), "&")) do
    for _, value in ipairs(is_slot(pair) and keys.parameter_values(pair) or {}) do found[#found + 1] = value end
  end
  return found
end

-- Return the parts of a parameter that are not dropped, nil where none is left; some servers take `;` for `&`.
local function kept_of(pair, drops)
  if drops(pair) then return nil end
  if not has(pair, ";") then return pair end
  local kept = {}
  for _, part in ipairs(text.split(pair, ";")) do
    if not drops(part) then kept[#kept + 1] = part end
  end
  return kept[1] and table.concat(kept, ";")
end

-- Return a query with its question mark without some parameters; the rest stays byte for byte.
function keys.query_without(query, drops)
  if query == "" then return query end
  local kept = {}
  for _, pair in ipairs(text.split(query:sub(2), "&")) do kept[#kept + 1] = kept_of(pair, drops) end
  return kept[1] and "?" .. table.concat(kept, "&") or ""
end

-- Return a query without the parameters that carry a key.
function keys.sent_query(query) return keys.query_without(query, keys.is_key_parameter) end
