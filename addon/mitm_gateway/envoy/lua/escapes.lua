-- JSON strings: their text, and a text as a JSON string.

local escapes = {}

local SHORT = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }
local LETTERS = {}
for letter, plain in pairs(SHORT) do LETTERS[plain] = letter end

local function utf8(code)
  if code < 128 then return string.char(code) end
  if code < 2048 then return string.char(192 + bit.rshift(code, 6), 128 + bit.band(code, 63)) end
  local tail = string.char(128 + bit.band(bit.rshift(code, 6), 63), 128 + bit.band(code, 63))
  if code < 65536 then return string.char(224 + bit.rshift(code, 12)) .. tail end
  return string.char(240 + bit.rshift(code, 18), 128 + bit.band(bit.rshift(code, 12), 63)) .. tail
end

-- Return the character whose digits begin at `at`, and the place behind it; two halves of a surrogate pair are one.
local function unicode_at(text, at)
  local code = tonumber(text:match("^%x%x%x%x", at) or "", 16)
  if not code then return nil end
  if code >= 55296 and code < 56320 and text:find("^\\u[dD][c-fC-F]%x%x", at + 4) then
    return utf8(65536 + (code - 55296) * 1024 + tonumber(text:sub(at + 6, at + 9), 16) - 56320), at + 10
  end
  return utf8(code), at + 4
end

-- Return the text of a string without its quotes, nil where an escape is wrong. Half of a surrogate pair becomes three
-- bytes.
function escapes.decoded(text)
  local at = text:find("\\", 1, true)
  if not at then return text end
  local pieces, done = {}, 1
  while at do
    pieces[#pieces + 1] = text:sub(done, at - 1)
    local letter = text:sub(at + 1, at + 1)
    local character = SHORT[letter]
    done = at + 2
    if letter == "u" then character, done = unicode_at(text, done) end
    if not character then return nil end
    pieces[#pieces + 1] = character
    at = text:find("\\", done, true)
  end
  pieces[#pieces + 1] = text:sub(done)
  return table.concat(pieces)
end

local function escaped(character)
  if character == "\127" then return character end
  local letter = LETTERS[character]
  return letter and "\\" .. letter or string.format("\\u%04x", character:byte())
end

local function escaped_surrogate(high, low)
  return string.format("\\u%04x", 53248 + (high:byte() - 128) * 64 + low:byte() - 128)
end

-- Return a text as a JSON string.
function escapes.quoted(text)
  if text:find('[%c"\\\237]') then
    text = text:gsub('[%c"\\]', escaped):gsub("\237([\160-\191])([\128-\191])", escaped_surrogate)
  end
  return '"' .. text .. '"'
end

-- Return a function that writes texts as JSON strings and keeps the last one: the next is mostly the same.
function escapes.new_writer()
  local last, written
  return function(text)
    if text ~= last then last, written = text, escapes.quoted(text) end
    return written
  end
end
