-- An estimate of a request's tokens: the characters of its texts, keys and other values, divided.

local estimate = {}

local QUOTE, OPEN_OBJECT, OPEN_ARRAY, NULL = 34, 123, 91, 110
local value_end = json.value_end

local counted, names_size = {}, {}
for form, names in pairs(CONSTANTS.estimated_members) do
  counted[form], names_size[form] = text.set_of(names), #table.concat(names)
end

-- Count characters by their first bytes: all but the ones that continue a character.
local function characters_of(text)
  local _, continuations = text:gsub("[\128-\191]", "")
  return #text - continuations
end

-- Return the characters of the value at `at`, and its end.
local function characters_in(text, p, at)
  local byte = p[at]
  if byte ~= OPEN_OBJECT and byte ~= OPEN_ARRAY then
    local finish = value_end(p, at)
    if byte == QUOTE then return characters_of(escapes.decoded(text:sub(at + 2, finish - 1))), finish end
    return byte == NULL and 0 or finish - at, finish
  end
  local total, is_base64 = 0, false
  local closing = json.each(text, p, at, function(key, value)
    local inner, finish = characters_in(text, p, value)
    total = total + inner
    if byte == OPEN_OBJECT then
      total = total + characters_of(key)
      is_base64 = is_base64
        or (key == "type" and p[value] == QUOTE and escapes.decoded(text:sub(value + 2, finish - 1)) == "base64")
    end
    return finish
  end)
  return is_base64 and CONSTANTS.image_characters or total, closing + 1
end

local function rounded(characters) return math.max(1, math.floor(characters / CONSTANTS.characters_per_token + 0.5)) end

-- Estimate the tokens of a body that `json.scan` has checked, in the form of its API.
function estimate.tokens(text, form)
  if growth.has_many_backslashes(text) or growth.has_many_values(text) then return rounded(#text) end
  local p, at = json.open(text)
  local total = names_size[form]
  json.each(text, p, at, function(key, value)
    if not counted[form][key] then return value_end(p, value) end
    local inner, finish = characters_in(text, p, value)
    total = total + inner
    return finish
  end)
  return rounded(total)
end
