-- The memory that the arrays and objects of a JSON text would need as data, counted as the addon counts it.

local growth = {}

local COSTS = CONSTANTS.growth
local BACKSLASH = 92

local bytes_of = text.bytes_of

-- The kind of each byte outside strings that counts.
local ARRAY, OBJECT, COMMA, COLON, STRING = 1, 2, 3, 4, 5
local kinds = ffi.new("uint8_t[256]")
for byte, kind in pairs({ ["["] = ARRAY, ["{"] = OBJECT, [","] = COMMA, [":"] = COLON, ['"'] = STRING }) do
  kinds[byte:byte()] = kind
end

-- Return the place behind the string whose first character is at `at`. The backslashes before each quote are counted
-- once, so this takes time in proportion to the string.
local function string_end(text, p, at)
  local start = at
  while true do
    local behind = text:find('"', at + 1, true)
    if not behind then return #text end
    local place = behind - 1
    while place > start and p[place - 1] == BACKSLASH do place = place - 1 end
    if (behind - 1 - place) % 2 == 0 then return behind end
    at = behind
  end
end

-- Return how many arrays, objects, commas, colons and strings a text has, apart from the ones inside strings.
local function counts(text)
  local p, at, size = bytes_of(text), 0, #text
  local arrays, objects, commas, colons, strings = 0, 0, 0, 0, 0
  while at < size do
    local kind = kinds[p[at]]
    at = at + 1
    if kind == ARRAY then
      arrays = arrays + 1
    elseif kind == OBJECT then
      objects = objects + 1
    elseif kind == COMMA then
      commas = commas + 1
    elseif kind == COLON then
      colons = colons + 1
    elseif kind == STRING then
      at, strings = string_end(text, p, at), strings + 1
    end
  end
  return arrays, objects, commas, colons, strings
end

-- Return whether a JSON text has more values than are looked at one by one.
function growth.has_many_values(text)
  if #text <= COSTS.many_values then return false end
  local arrays, objects, commas = counts(text)
  return arrays + objects + commas > COSTS.many_values
end

-- Return whether reading the strings of a text would take long.
function growth.has_many_backslashes(text)
  local p, left = bytes_of(text), COSTS.many_backslashes
  for at = 0, #text - 1 do
    if p[at] == BACKSLASH then left = left - 1 end
  end
  return left < 0
end

-- Return whether a large JSON text has millions of values, or is small as text and large as data.
function growth.is_excessive(text)
  local size = #text
  if size <= COSTS.small_text then return false end
  local most = COSTS.max * size
  local arrays, objects, commas, colons, strings = counts(text)
  if COSTS.array_values * arrays + objects + commas + colons > COSTS.max_values then return true end
  local containers = arrays + objects
  local may_exceed = COSTS.container * containers > most / 2
    or COSTS.string * strings > most
    or COSTS.entry * colons > most
  local in_arrays = math.max(0, strings - 2 * colons)
  local in_large_objects = math.max(0, colons - COSTS.usual_members * containers)
  local needed = COSTS.container * containers
    + COSTS.member * commas
    + COSTS.string * in_arrays
    + COSTS.entry * in_large_objects
  return may_exceed and needed > most
end
