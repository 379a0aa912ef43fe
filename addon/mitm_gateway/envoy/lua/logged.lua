-- Texts of a client as the access log shows them.

local logged = {}

local KEY_MARKS, MAX_NAME = CONSTANTS.key_marks, CONSTANTS.max_logged_name

local function has_key_mark(value) return text.has_any(value, KEY_MARKS) end

-- Return a text, masked where it has something like a key.
function logged.masked(value) return has_key_mark(value) and CONSTANTS.mask or value end

-- Characters that act on a terminal, as in the addon: controls, marks of direction, ends of lines, surrogates, tags.
local UNSAFE = {
  "[%z\1-\31\127]", "\194[\128-\159]", "\216\156", "\226\128[\142\143\168-\174]", "\226\129[\166-\169]",
  "\237[\160-\191][\128-\191]", "\243\160[\128\129][\128-\191]",
}
local LEADS = { 0, 0, 31, 15, 7 }

-- Return a symbol or an escape for a character.
local function picture(character)
  local code = character:byte()
  if #character == 1 then return code == 127 and "\226\144\161" or "\226\144" .. string.char(128 + code) end
  code = bit.band(code, LEADS[#character + 1])
  for place = 2, #character do code = code * 64 + character:byte(place) - 128 end
  return string.format(code > 65535 and "\\U%08x" or "\\u%04x", code)
end

local function is_plain(value)
  for place = 1, #value do
    local byte = value:byte(place)
    if byte < 32 or byte > 126 then return false end
  end
  return true
end

-- Return the first characters of a text, up to this number.
local function beginning(value, count)
  local at = 1
  for _ = 1, count do
    at = value:find("[^\128-\191]", at + 1)
    if not at then return value end
  end
  return value:sub(1, at - 1)
end

-- Return a name that a client chose: on one line, cut where it is very long, masked where it has something like a key.
function logged.shown(name)
  local most = CONSTANTS.max_shown_name
  if has_key_mark(name) then return CONSTANTS.mask end
  if #name <= most and is_plain(name) then return name end
  local shown = beginning(name, most + 1):gsub("\r\n", "\n")
  for _, unsafe in ipairs(UNSAFE) do shown = shown:gsub(unsafe, picture) end
  if beginning(shown, most) == shown then return shown end
  return beginning(shown, most - 1) .. "\226\128\166"
end

-- Return the first value of these headers that is a plain name without anything like a key.
function logged.name(headers, names)
  for place = 1, #names do
    local value = headers:get(names[place])
    if value and #value <= MAX_NAME and value:find("^[%w_.:-]+$") and not has_key_mark(value) then return value end
  end
end
