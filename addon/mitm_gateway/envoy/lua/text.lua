-- Texts as bytes: globs, blanks, percent-encoding. Every function takes time in proportion to the text.

local text = {}

-- The bytes of a text, counted from 0; behind the last one there is a NUL.
text.bytes_of = ffi.typeof("const uint8_t *")

-- Return marks by byte: 1 for the bytes in this text.
function text.marks_of(bytes)
  local marks = ffi.new("uint8_t[256]")
  for place = 1, #bytes do marks[bytes:byte(place)] = 1 end
  return marks
end

-- Compiled by LuaJIT, which a search for a pattern is not.
function text.has(subject, part) return subject:find(part, 1, true) ~= nil end
local has = text.has

-- Return whether a subject contains any of these parts.
function text.has_any(subject, parts)
  for place = 1, #parts do
    if has(subject, parts[place]) then return true end
  end
  return false
end

-- Return whether a subject begins like this.
function text.begins(subject, start) return subject:sub(1, #start) == start end

function text.begins_with_any(subject, starts)
  for place = 1, #starts do
    if text.begins(subject, starts[place]) then return true end
  end
  return false
end

-- Return a table with these names as keys.
function text.set_of(names)
  local set = {}
  for place = 1, #names do set[names[place]] = true end
  return set
end

-- Return the texts that a glob's stars match, each as short as possible from the left; nil for no match. `literals` are
-- the parts between the stars.
function text.captures(literals, subject)
  local count = #literals
  local first, last = literals[1], literals[count]
  if count == 1 then return first == subject and {} or nil end
  local limit = #subject - #last
  if limit < #first or subject:sub(1, #first) ~= first or subject:sub(limit + 1) ~= last then return nil end
  local at, found = #first + 1, {}
  for place = 2, count - 1 do
    local from, to = subject:find(literals[place], at, true)
    if not from or to > limit then return nil end
    found[#found + 1] = subject:sub(at, from - 1)
    at = to + 1
  end
  found[#found + 1] = subject:sub(at, limit)
  return found
end

-- Return whether a glob covers the whole subject.
function text.covers(literals, subject) return text.captures(literals, subject) ~= nil end

function text.any_covers(globs, subject)
  for _, literals in ipairs(globs) do
    if text.covers(literals, subject) then return true end
  end
  return false
end

-- Blanks as Python's str.strip knows them: bytes of ASCII, and in UTF-8 the ones beyond.
local BLANK_BYTES, WIDE_BLANKS = {}, {}
for _, range in ipairs({ { 9, 13 }, { 28, 32 } }) do
  for byte = range[1], range[2] do BLANK_BYTES[byte] = true end
end
for _, blank in ipairs(CONSTANTS.wide_blanks) do WIDE_BLANKS[blank] = #blank end

-- Return the size of the blank that begins at a byte's place, 0 where none does; two lookups at most.
local function blank_at(subject, place)
  local byte = subject:byte(place)
  if BLANK_BYTES[byte] then return 1 end
  if byte < 128 then return 0 end
  return WIDE_BLANKS[subject:sub(place, place + 1)] or WIDE_BLANKS[subject:sub(place, place + 2)] or 0
end

local function blank_before(subject, place)
  local byte = subject:byte(place)
  if BLANK_BYTES[byte] then return 1 end
  if byte < 128 then return 0 end
  return WIDE_BLANKS[subject:sub(math.max(place - 1, 1), place)]
    or WIDE_BLANKS[subject:sub(math.max(place - 2, 1), place)] or 0
end

-- Return the subject without the blanks around it.
function text.trimmed(subject)
  local first, last = 1, #subject
  while first <= last do
    local size = blank_at(subject, first)
    if size == 0 then break end
    first = first + size
  end
  while first <= last do
    local size = blank_before(subject, last)
    if size == 0 then break end
    last = last - size
  end
  return subject:sub(first, last)
end

-- Return the subject without this character at its end, however often it is repeated there.
function text.without_final(subject, character)
  local last, byte = #subject, character:byte()
  while last > 0 and subject:byte(last) == byte do last = last - 1 end
  return subject:sub(1, last)
end

-- Return the parts between separators of one character, empty ones included.
function text.split(subject, separator)
  local parts, at = {}, 1
  while true do
    local place = subject:find(separator, at, true)
    if not place then break end
    parts[#parts + 1] = subject:sub(at, place - 1)
    at = place + 1
  end
  parts[#parts + 1] = subject:sub(at)
  return parts
end

local function character_of(hex) return string.char(tonumber(hex, 16)) end

-- Decode all percent-encoded bytes.
function text.unquoted(subject)
  if not has(subject, "%") then return subject end
  return (subject:gsub("%%(%x%x)", character_of))
end

local UNREADABLE = "\239\191\189" -- U+FFFD
local CONTINUED = "^[\128-\191]"
local SECOND = { [224] = "^[\160-\191]", [237] = "^[\128-\159]", [240] = "^[\144-\191]", [244] = "^[\128-\143]" }

-- Return the last byte of the character at `at`, and whether it is whole; of a broken one, the bytes that begin one.
local function character_at(subject, at)
  local lead = subject:byte(at)
  local more = lead >= 240 and lead <= 244 and 3 or lead >= 224 and lead < 240 and 2 or lead >= 194 and lead < 224 and 1
  if lead < 128 or not more then return at, lead < 128 end
  local last = at
  while last < at + more and subject:find(last == at and SECOND[lead] or CONTINUED, last + 1) do last = last + 1 end
  return last, last == at + more
end

-- Return bytes as UTF-8: each broken character becomes U+FFFD, as in Python.
local function readable(subject)
  if not subject:find("[\128-\255]") then return subject end
  local pieces, at = {}, 1
  while at <= #subject do
    local last, is_whole = character_at(subject, at)
    pieces[#pieces + 1] = is_whole and subject:sub(at, last) or UNREADABLE
    at = last + 1
  end
  return table.concat(pieces)
end

local function unquoted_run(run) return has(run, "%") and readable(text.unquoted(run)) or nil end

-- Decode all percent-encoded bytes as UTF-8.
function text.unquoted_text(subject)
  if not has(subject, "%") then return subject end
  return (subject:gsub("[%z\1-\127]+", unquoted_run))
end

local function escaped(byte) return string.format("%%%02X", byte:byte()) end

-- Percent-encode a text as one segment of a path.
function text.quoted(subject) return (subject:gsub("[^%w%-._~:@]", escaped)) end

-- Percent-encode a text as a header value that Envoy's routes match.
function text.as_value(subject) return (subject:gsub("[^!-$&-~]", escaped)) end

local function needless(hex)
  local character = character_of(hex)
  return character:find("[%w%-._~:@]") and character or nil
end

-- Decode needlessly encoded letters, digits and -._~:@ of a path.
function text.normal_path(path)
  if not has(path, "%") then return path end
  return (path:gsub("%%(%x%x)", needless))
end
