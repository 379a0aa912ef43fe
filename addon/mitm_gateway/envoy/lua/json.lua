-- Strict reading of JSON text as bytes: the end of a value, the members of a container, the model of a body.
-- A Lua string ends in a NUL that is not part of it and that JSON allows nowhere, so no loop runs over the end.
-- All places count from 0.

local json = {}

local REASONS = CONSTANTS.reasons
local MAX_DEPTH, MAX_MEMBERS, MAX_DIGITS = CONSTANTS.max_depth, CONSTANTS.max_members, CONSTANTS.max_digits
local QUOTE, BACKSLASH, COMMA, COLON, MINUS, DOT = 34, 92, 44, 58, 45, 46
local OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY = 123, 125, 91

local bytes_of, marks_of = text.bytes_of, text.marks_of

-- Refuse the request with this reason.
function json.refuse(reason) error({ status = 400, reason = reason }, 0) end
local refuse = json.refuse

-- Bytes inside a string that need a look: the quote, the backslash, controls and all beyond ASCII.
local is_special = marks_of('"\\')
for byte = 0, 255 do
  if byte < 32 or byte > 127 then is_special[byte] = 1 end
end
local is_blank = marks_of(" \t\n\r")
local is_short_escape = marks_of('"\\/bfnrt')

-- The size of the text that is read; only one is, and Envoy never waits meanwhile.
local size = 0

local open_containers = ffi.new("uint8_t[?]", MAX_DEPTH + 2)

local function blanks_end(p, at)
  while is_blank[p[at]] == 1 do at = at + 1 end
  return at
end

local function is_continuation(byte) return byte >= 128 and byte < 192 end

-- Return the end of a character beyond ASCII: no overlong form, no surrogate, nothing above U+10FFFF.
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
  refuse(REASONS.not_utf8)
end

local function is_hex(byte)
  return (byte >= 48 and byte <= 57) or (byte >= 65 and byte <= 70) or (byte >= 97 and byte <= 102)
end

local function escape_end(p, at)
  if p[at + 1] == 117 and is_hex(p[at + 2]) and is_hex(p[at + 3]) and is_hex(p[at + 4]) and is_hex(p[at + 5]) then
    return at + 6
  end
  refuse(REASONS.not_json)
end

-- Longer strings are read four places at once.
local SHORT = 256

-- Return the place behind the closing quote of the string whose first character is at `at`.
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
      refuse(REASONS.not_json)
    end
  end
end
json.string_end = string_end

local function digits_end(p, at)
  local start = at
  while p[at] >= 48 and p[at] <= 57 do at = at + 1 end
  if at == start then refuse(REASONS.not_json) end
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
  if at == whole and at - start > MAX_DIGITS then refuse(REASONS.too_many_digits) end
  return at
end

local words = { [116] = "true", [102] = "false", [110] = "null" }

local function scalar_end(p, at)
  local word = words[p[at]]
  if not word then return number_end(p, at) end
  for place = 1, #word do
    if p[at + place - 1] ~= word:byte(place) then refuse(REASONS.not_json) end
  end
  return at + #word
end

-- Return the end of the string in a text whose first character is at `at`.
function json.string_at(text, at)
  size = #text
  return string_end(bytes_of(text), at)
end

-- Step from a key's quote to the value behind its colon.
local function value_after_key(p, at)
  if p[at] ~= QUOTE then refuse(REASONS.not_json) end
  at = blanks_end(p, string_end(p, at + 1))
  if p[at] ~= COLON then refuse(REASONS.not_json) end
  return blanks_end(p, at + 1)
end

-- Return the end of the value that begins at `at`.
local function value_end(p, at)
  local depth = 0
  while true do
    local byte, opened = p[at], false
    if byte == QUOTE then
      at = string_end(p, at + 1)
    elseif byte == OPEN_OBJECT or byte == OPEN_ARRAY then
      depth = depth + 1
      if depth > MAX_DEPTH then refuse(REASONS.too_deep) end
      open_containers[depth] = byte
      at = blanks_end(p, at + 1)
      if p[at] == byte + 2 then -- in ASCII a closing bracket is two behind the opening one
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
        refuse(REASONS.not_json)
      end
    end
  end
end
json.value_end = value_end

-- Make a text the one that is read. Return its bytes and the place of its first value, behind a byte order mark.
function json.open(text)
  size = #text
  local p = bytes_of(text)
  return p, blanks_end(p, p[0] == 239 and p[1] == 187 and p[2] == 191 and 3 or 0)
end

local function expect_end(p, at)
  if blanks_end(p, at) ~= size then refuse(REASONS.not_json) end
end

-- Call `visit(key, value, start)` for each member of the object or array that opens at `at`, which returns the value's
-- end. `start` is the place of the key's quote, or of an array's value. Return the place of the closing bracket.
function json.each(text, p, at, visit)
  local is_object, closing, number = p[at] == OPEN_OBJECT, p[at] + 2, 0
  at = blanks_end(p, at + 1)
  if p[at] == closing then return at end
  while true do
    local key, value = number, at
    if is_object then
      value = value_after_key(p, at)
      key = escapes.decoded(text:sub(at + 2, string_end(p, at + 1) - 1))
    end
    at = blanks_end(p, visit(key, value, at))
    if p[at] == closing then return at end
    if p[at] ~= COMMA then refuse(REASONS.not_json) end
    at, number = blanks_end(p, at + 1), number + 1
  end
end

-- Check that a text is strict JSON with an object at its top, of a bounded number of members. `visit(p, key, value)` gets
-- the places of each key's quote and value, and returns the value's end.
function json.scan(text, visit)
  if growth.is_excessive(text) then error({ status = 413, reason = REASONS.overgrown }, 0) end
  local p, at = json.open(text)
  if p[at] ~= OPEN_OBJECT then
    expect_end(p, value_end(p, at))
    refuse(REASONS.not_an_object)
  end
  at = blanks_end(p, at + 1)
  if p[at] == CLOSE_OBJECT then return expect_end(p, at + 1) end
  for _ = 1, MAX_MEMBERS do
    at = blanks_end(p, visit(p, at, value_after_key(p, at)))
    if p[at] == CLOSE_OBJECT then return expect_end(p, at + 1) end
    if p[at] ~= COMMA then refuse(REASONS.not_json) end
    at = blanks_end(p, at + 1)
  end
  refuse(p[at] == QUOTE and REASONS.too_many or REASONS.not_json)
end

-- Return an object's members of these names as raw text; none where the text is no object.
function json.fields(text, names)
  local p, at = json.open(text)
  local found = {}
  if p[at] ~= OPEN_OBJECT then return found end
  local closing = json.each(text, p, at, function(key, value)
    local finish = value_end(p, value)
    if names[key or ""] then found[key] = text:sub(value + 1, finish) end
    return finish
  end)
  expect_end(p, closing + 1)
  return found
end

-- Return the elements of an array as raw text; none where the text is no array.
function json.items(text)
  local p, at = json.open(text)
  local found = {}
  if p[at] ~= OPEN_ARRAY then return found end
  local closing = json.each(text, p, at, function(_, value)
    local finish = value_end(p, value)
    found[#found + 1] = text:sub(value + 1, finish)
    return finish
  end)
  expect_end(p, closing + 1)
  return found
end

-- Return whether a text is UTF-8.
function json.is_utf8(text)
  local p, at = bytes_of(text), 0
  return (pcall(function()
    while at < #text do at = p[at] > 127 and character_end(p, at) or at + 1 end
  end))
end
