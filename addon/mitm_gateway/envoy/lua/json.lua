-- Byte-exact edits of a JSON object: what is not edited stays identical to the byte.
-- The text is walked as bytes and checked strictly on the way. A Lua string ends in a NUL that is not part of it
-- and that JSON allows nowhere, so no walk can run over the end.

local json = {}

local as_bytes = ffi.typeof("const uint8_t *")
local QUOTE, BACKSLASH, COMMA, COLON, MINUS, DOT = 34, 92, 44, 58, 45, 46
local OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY = 123, 125, 91
-- As deep as Python's own reader goes, and as many members and digits as the addon takes.
local MAX_DEPTH, MAX_MEMBERS, MAX_DIGITS = 990, 100000, 4300
json.ANY = true -- the step of a path that stands for every element

local NOT_JSON = "the body is not valid JSON"
local TOO_MANY = "the body has an object or array with too many members"
local REPEATED = "the body has a repeated key that a rule edits"

local function refuse(reason)
  error({ status = 400, reason = reason }, 0)
end

-- Bytes inside a string that need a look: the quote, the backslash, controls and all beyond ASCII.
local is_special = ffi.new("uint8_t[256]")
for byte = 0, 255 do
  local special = byte < 32 or byte > 127 or byte == QUOTE or byte == BACKSLASH
  is_special[byte] = special and 1 or 0
end

local is_blank = ffi.new("uint8_t[256]")
for _, byte in ipairs({ 32, 9, 10, 13 }) do is_blank[byte] = 1 end

-- The text that is walked: one at a time, and never while Envoy waits.
local size = 0

local function bytes_of(text)
  size = #text
  return as_bytes(text)
end

local open_containers = ffi.new("uint8_t[?]", MAX_DEPTH + 2)

local function blanks_end(p, at)
  while is_blank[p[at]] == 1 do at = at + 1 end
  return at
end

local function is_continuation(byte) return byte >= 128 and byte < 192 end

-- The end of a character beyond ASCII: no overlong form, no surrogate, nothing above U+10FFFF.
local function character_end(p, at)
  local a, b = p[at], p[at + 1]
  if a >= 194 and a <= 223 and is_continuation(b) then return at + 2 end
  if a >= 224 and a <= 239 then
    local low = a == 224 and 160 or 128
    local high = a == 237 and 159 or 191
    if b >= low and b <= high and is_continuation(p[at + 2]) then return at + 3 end
  elseif a >= 240 and a <= 244 then
    local low = a == 240 and 144 or 128
    local high = a == 244 and 143 or 191
    if b >= low and b <= high and is_continuation(p[at + 2]) and is_continuation(p[at + 3]) then return at + 4 end
  end
  refuse("the body is not UTF-8")
end

local function is_hex(byte)
  return (byte >= 48 and byte <= 57) or (byte >= 65 and byte <= 70) or (byte >= 97 and byte <= 102)
end

local is_short_escape = ffi.new("uint8_t[256]")
for letter in ('"\\/bfnrt'):gmatch(".") do is_short_escape[letter:byte()] = 1 end

local function escape_end(p, at)
  if p[at + 1] == 117 and is_hex(p[at + 2]) and is_hex(p[at + 3]) and is_hex(p[at + 4]) and is_hex(p[at + 5]) then
    return at + 6
  end
  refuse(NOT_JSON)
end

-- What is longer is read the quicker way from there on.
local SHORT = 256

-- Behind the closing quote of the string whose first character is at `at`.
local function string_end(p, at)
  local long = at + SHORT
  while true do
    while is_special[p[at]] == 0 and at < long do at = at + 1 end
    if at >= long then
      at = strings.good_end(p, at, size)
      long = at + SHORT
      while is_special[p[at]] == 0 do at = at + 1 end
    end
    local byte = p[at]
    if byte == BACKSLASH and is_short_escape[p[at + 1]] == 1 then
      at = at + 2
    elseif byte == QUOTE then
      return at + 1
    elseif byte == BACKSLASH then
      at = escape_end(p, at)
    elseif byte > 127 then
      at = character_end(p, at)
    else
      refuse(NOT_JSON)
    end
  end
end

local function digits_end(p, at)
  local start = at
  while p[at] >= 48 and p[at] <= 57 do at = at + 1 end
  if at == start then refuse(NOT_JSON) end
  return at
end

local function number_end(p, at)
  if p[at] == MINUS then at = at + 1 end
  local start = at
  if p[at] == 48 then at = at + 1 else at = digits_end(p, at) end
  local whole = at
  if p[at] == DOT then at = digits_end(p, at + 1) end
  if p[at] == 101 or p[at] == 69 then
    at = at + 1
    if p[at] == 43 or p[at] == MINUS then at = at + 1 end
    at = digits_end(p, at)
  end
  if at == whole and at - start > MAX_DIGITS then refuse("the body has a number with too many digits") end
  return at
end

local words = { [116] = "true", [102] = "false", [110] = "null" }

local function scalar_end(p, at)
  local word = words[p[at]]
  if not word then return number_end(p, at) end
  for place = 1, #word do
    if p[at + place - 1] ~= word:byte(place) then refuse(NOT_JSON) end
  end
  return at + #word
end

-- From a key's quote to the value behind its colon.
local function value_after_key(p, at)
  if p[at] ~= QUOTE then refuse(NOT_JSON) end
  at = blanks_end(p, string_end(p, at + 1))
  if p[at] ~= COLON then refuse(NOT_JSON) end
  return blanks_end(p, at + 1)
end

local function value_end(p, at)
  local depth = 0
  while true do
    local byte, opened = p[at], false
    if byte == QUOTE then
      at = string_end(p, at + 1)
    elseif byte == OPEN_OBJECT or byte == OPEN_ARRAY then
      depth = depth + 1
      if depth > MAX_DEPTH then refuse("the body is nested too deep") end
      open_containers[depth] = byte
      at = blanks_end(p, at + 1)
      if p[at] == byte + 2 then -- the closing bracket stands two behind the opening one
        at, depth = at + 1, depth - 1
      else
        opened = true
        if byte == OPEN_OBJECT then at = value_after_key(p, at) end
      end
    else
      at = scalar_end(p, at)
    end
    while not opened do
      if depth == 0 then return at end
      at = blanks_end(p, at)
      local container = open_containers[depth]
      if p[at] == COMMA then
        at = blanks_end(p, at + 1)
        if container == OPEN_OBJECT then at = value_after_key(p, at) end
        opened = true
      elseif p[at] == container + 2 then
        at, depth = at + 1, depth - 1
      else
        refuse(NOT_JSON)
      end
    end
  end
end

local short_escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function utf8(code)
  if code < 128 then return string.char(code) end
  if code < 2048 then return string.char(192 + bit.rshift(code, 6), 128 + bit.band(code, 63)) end
  local tail = string.char(128 + bit.band(bit.rshift(code, 6), 63), 128 + bit.band(code, 63))
  if code < 65536 then return string.char(224 + bit.rshift(code, 12)) .. tail end
  return string.char(240 + bit.rshift(code, 18), 128 + bit.band(bit.rshift(code, 12), 63)) .. tail
end

-- The text of a string without its quotes, nil where an escape is wrong. Half of a surrogate pair becomes three bytes.
local function decoded(text)
  local at = text:find("\\", 1, true)
  if not at then return text end
  local pieces, done = {}, 1
  while at do
    pieces[#pieces + 1] = text:sub(done, at - 1)
    local letter = text:sub(at + 1, at + 1)
    local character = short_escapes[letter]
    done = at + 2
    if letter == "u" then
      local code = tonumber(text:match("^%x%x%x%x", done) or "", 16)
      done = at + 6
      if code and code >= 55296 and code < 56320 and text:find("^\\u[dD][c-fC-F]%x%x", done) then
        code = 65536 + (code - 55296) * 1024 + tonumber(text:sub(done + 2, done + 5), 16) - 56320
        done = done + 6
      end
      character = code and utf8(code)
    end
    if not character then return nil end
    pieces[#pieces + 1] = character
    at = text:find("\\", done, true)
  end
  pieces[#pieces + 1] = text:sub(done)
  return table.concat(pieces)
end
json.decoded = decoded

local function escaped(character)
  if character == "\127" then return character end
  for letter, plain in pairs(short_escapes) do
    if plain == character and letter ~= "/" then return "\\" .. letter end
  end
  return string.format("\\u%04x", character:byte())
end

local function escaped_surrogate(high, low)
  return string.format("\\u%04x", 53248 + (high:byte() - 128) * 64 + low:byte() - 128)
end

-- A text as a JSON string.
function json.quoted(text)
  if text:find('[%c"\\\237]') then
    text = text:gsub('[%c"\\]', escaped):gsub("\237([\160-\191])([\128-\191])", escaped_surrogate)
  end
  return '"' .. text .. '"'
end

-- The members of the object or array that opens at `at`; `visit(key, value)` gives each value's end.
-- `starts` are the keys' quotes (in an array the values), and all places count from 0.
local function walk(text, p, at, visit)
  local is_object = p[at] == OPEN_OBJECT
  local closing = p[at] + 2
  local members = { keys = {}, starts = {}, values = {}, ends = {}, count = 0, opening = at }
  at = blanks_end(p, at + 1)
  if p[at] == closing then
    members.closing = at
    return members
  end
  while true do
    local number = members.count + 1
    local start, key, value = at, members.count, at
    if is_object then
      value = value_after_key(p, at)
      local key_end = string_end(p, at + 1)
      key = decoded(text:sub(at + 2, key_end - 1))
    end
    local finish = visit(key, value)
    members.keys[number], members.starts[number] = key, start
    members.values[number], members.ends[number] = value, finish
    members.count = number
    at = blanks_end(p, finish)
    if p[at] == closing then
      members.closing = at
      return members
    end
    if p[at] ~= COMMA then refuse(NOT_JSON) end
    if number >= MAX_MEMBERS then refuse(TOO_MANY) end
    at = blanks_end(p, at + 1)
  end
end

local function opening_of(p)
  local at = 0
  if p[0] == 239 and p[1] == 187 and p[2] == 191 then at = 3 end
  return blanks_end(p, at)
end

-- Behind a member of an object: the next one's quote, or the closing bracket.
local function next_key(p, at)
  at = blanks_end(p, at)
  if p[at] == CLOSE_OBJECT then return at end
  if p[at] ~= COMMA then refuse(NOT_JSON) end
  at = blanks_end(p, at + 1)
  if p[at] ~= QUOTE then refuse(NOT_JSON) end
  return at
end

-- Whether the key whose quote is at `at` says "model", with or without escapes.
local function is_model(text, p, at)
  if p[at + 1] ~= 109 and p[at + 1] ~= BACKSLASH then return false end
  return decoded(text:sub(at + 2, string_end(p, at + 1) - 1)) == "model"
end

-- Checks a body as strict JSON with at most one top-level "model"; gives the model and where its value stands.
function json.scan(text)
  local p = bytes_of(text)
  local at = opening_of(p)
  local model, model_start, model_end
  if p[at] ~= OPEN_OBJECT then
    if blanks_end(p, value_end(p, at)) ~= #text then refuse(NOT_JSON) end
    refuse("the body is not a JSON object")
  end
  local count = 0
  at = blanks_end(p, at + 1)
  while p[at] ~= CLOSE_OBJECT do
    local value = value_after_key(p, at)
    local finish = value_end(p, value)
    if is_model(text, p, at) then
      if model then refuse('the body has a second "model" key') end
      if p[value] ~= QUOTE then refuse('"model" is not a string') end
      model, model_start, model_end = decoded(text:sub(value + 2, finish - 1)), value, finish
    end
    at, count = next_key(p, finish), count + 1
    if count >= MAX_MEMBERS and p[at] == QUOTE then refuse(TOO_MANY) end
  end
  if blanks_end(p, at + 1) ~= #text then refuse(NOT_JSON) end
  return model, model_start, model_end
end

-- An object's members of these names, as they stand; none where the text is no object. Refuses what is no JSON.
function json.fields(text, names)
  local p, found = bytes_of(text), {}
  local at = opening_of(p)
  if p[at] ~= OPEN_OBJECT then return found end
  at = blanks_end(p, at + 1)
  while p[at] ~= CLOSE_OBJECT do
    local value = value_after_key(p, at)
    local finish, key = value_end(p, value), decoded(text:sub(at + 2, string_end(p, at + 1) - 1))
    if names[key or ""] then found[key] = text:sub(value + 1, finish) end
    at = next_key(p, finish)
  end
  if blanks_end(p, at + 1) ~= #text then refuse(NOT_JSON) end
  return found
end

local function spliced(text, edits)
  if #edits == 0 then return text end
  table.sort(edits, function(a, b) return a[1] < b[1] end)
  local pieces, done = {}, 0
  for _, edit in ipairs(edits) do
    pieces[#pieces + 1] = text:sub(done + 1, edit[1])
    pieces[#pieces + 1] = edit[3]
    done = edit[2]
  end
  pieces[#pieces + 1] = text:sub(done + 1)
  return table.concat(pieces)
end

-- Takes members and their commas out, and puts new ones at the end.
local function change_members(members, gone, added, edits)
  local kept = {}
  for number = 1, members.count do
    if not gone[number] then kept[#kept + 1] = number end
  end
  local inside, count = members.opening + 1, members.count
  if #kept == 0 then
    local text = added or ""
    if count > 0 or added then edits[#edits + 1] = { inside, count > 0 and members.closing or inside, text } end
    return
  end
  if kept[1] > 1 then edits[#edits + 1] = { members.starts[1], members.starts[kept[1]], "" } end
  for place, this in ipairs(kept) do
    local following = kept[place + 1] or count + 1
    if following - this > 1 then edits[#edits + 1] = { members.ends[this], members.ends[following - 1], "" } end
  end
  if added then
    local place = members.ends[kept[#kept]]
    edits[#edits + 1] = { place, place, "," .. added }
  end
end

local function fits(step, key)
  return step == key or (step == json.ANY and type(key) == "number")
end

-- Adds the edits that take the paths out of the value at `at`, whose first steps were taken; gives its end.
local function prune(text, p, at, paths, depth, edits, once)
  if p[at] ~= OPEN_OBJECT and p[at] ~= OPEN_ARRAY then return value_end(p, at) end
  local gone, seen, any = {}, {}, false
  local members = walk(text, p, at, function(key, value)
    local below, whole = {}, false
    for _, path in ipairs(paths) do
      if fits(path[depth], key) then
        whole = whole or #path == depth
        below[#below + 1] = path
      end
    end
    if once and #below > 0 then
      if seen[key] then refuse(REPEATED) end
      seen[key] = true
    end
    gone[#gone + 1] = whole
    any = any or whole
    if whole or #below == 0 then return value_end(p, value) end
    return prune(text, p, value, below, depth + 1, edits)
  end)
  if any then change_members(members, gone, nil, edits) end
  return members.closing + 1
end

function json.remove(text, paths)
  local p, edits = bytes_of(text), {}
  prune(text, p, opening_of(p), paths, 1, edits, true)
  return spliced(text, edits)
end

-- The value inside the objects that the steps name; nil where a step asks for an array.
local function wrapped(path, depth, value)
  for place = #path, depth, -1 do
    if type(path[place]) ~= "string" then return nil end
    value = "{" .. json.quoted(path[place]) .. ":" .. value .. "}"
  end
  return value
end

local function assign(text, p, at, path, depth, value, edits)
  if depth > #path then
    local finish = value_end(p, at)
    if text:sub(at + 1, finish) ~= value then edits[#edits + 1] = { at, finish, value } end
    return finish
  end
  if p[at] ~= OPEN_OBJECT and p[at] ~= OPEN_ARRAY then return value_end(p, at) end
  local step, found = path[depth], 0
  local members = walk(text, p, at, function(key, place)
    if not fits(step, key) then return value_end(p, place) end
    found = found + 1
    return assign(text, p, place, path, depth + 1, value, edits)
  end)
  if type(step) == "string" and p[at] == OPEN_OBJECT then
    if found > 1 then refuse(REPEATED) end
    local built = found == 0 and wrapped(path, depth + 1, value)
    if built then change_members(members, {}, json.quoted(step) .. ":" .. built, edits) end
  end
  return members.closing + 1
end

function json.set(text, path, value)
  local p, edits = bytes_of(text), {}
  assign(text, p, opening_of(p), path, 1, value, edits)
  return spliced(text, edits)
end

-- Maps the names in a top-level "anthropic_beta" array; the member goes when none is left.
function json.map_betas(text, edited)
  local p, names, found = bytes_of(text), {}, nil
  local members = walk(text, p, opening_of(p), function(key, value)
    if key ~= "anthropic_beta" then return value_end(p, value) end
    if found then refuse(REPEATED) end
    found = value
    if p[value] ~= OPEN_ARRAY then refuse('"anthropic_beta" is not an array of strings') end
    return walk(text, p, value, function(_, place)
      if p[place] ~= QUOTE then refuse('"anthropic_beta" is not an array of strings') end
      local finish = string_end(p, place + 1)
      names[#names + 1] = decoded(text:sub(place + 2, finish - 1))
      return finish
    end).closing + 1
  end)
  if not found then return text end
  local kept, changed = edited(names)
  if not changed then return text end
  local edits, gone = {}, {}
  for number = 1, members.count do
    if members.values[number] == found then
      gone[number] = #names > 0 and #kept == 0
      if not gone[number] then
        for place, name in ipairs(kept) do kept[place] = json.quoted(name) end
        edits[1] = { found, members.ends[number], "[" .. table.concat(kept, ",") .. "]" }
      end
    end
  end
  if #edits == 0 then change_members(members, gone, nil, edits) end
  return spliced(text, edits)
end

-- About how many tokens a request has: the characters of its texts, keys and other values, divided.
local BASE64_CHARACTERS = 5760 -- an image counts as 1,600 tokens of 3.6 characters

local function characters_of(text)
  local _, continuations = text:gsub("[\128-\191]", "")
  return #text - continuations
end

local function characters_in(text, p, at)
  local byte = p[at]
  if byte == QUOTE then
    local finish = string_end(p, at + 1)
    return characters_of(decoded(text:sub(at + 2, finish - 1))), finish
  end
  if byte ~= OPEN_OBJECT and byte ~= OPEN_ARRAY then
    local finish = scalar_end(p, at)
    return (byte == 110 and 0) or finish - at, finish
  end
  local total, is_base64 = 0, false
  local members = walk(text, p, at, function(key, value)
    local inner, finish = characters_in(text, p, value)
    total = total + inner + (type(key) == "string" and characters_of(key) or 0)
    is_base64 = is_base64 or (key == "type" and text:sub(value + 1, finish) == '"base64"')
    return finish
  end)
  return is_base64 and BASE64_CHARACTERS or total, members.closing + 1
end

local COUNTED = { system = true, messages = true, tools = true }

function json.estimated_tokens(text)
  local p, total = bytes_of(text), #"system" + #"messages" + #"tools"
  walk(text, p, opening_of(p), function(key, value)
    if not COUNTED[key] then return value_end(p, value) end
    local inner, finish = characters_in(text, p, value)
    total = total + inner
    return finish
  end)
  return math.max(1, math.floor(total / 3.6 + 0.5))
end
