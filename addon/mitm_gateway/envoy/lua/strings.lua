-- Long strings of JSON, read at four places at once. Byte by byte, a processor waits for the branch at each quote and
-- backslash; four readings side by side fill each other's waits, and each takes two bytes a step, by tables.
-- The bytes that this module passes are good inside a string: UTF-8, no control character, whole escapes. It stops
-- before any other byte, and before the string's end.

local strings = {}

local QUOTE, BACKSLASH = 34, 92
-- The state of a reading: in plain text, behind a backslash, before hexadecimal digits, before the rest of a character
-- (the others bound its second byte: no overlong form, no surrogate, nothing above U+10FFFF), stopped.
local TEXT, ESCAPE, HEX4, HEX3, HEX2, HEX1, REST1, REST2, REST3, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4, STOP =
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13

-- Transitions: state, first and last byte, next state. Any other byte stops the reading, and later lines win.
local STEPS = {
  { TEXT, 32, 127, TEXT }, { TEXT, QUOTE, QUOTE, STOP }, { TEXT, BACKSLASH, BACKSLASH, ESCAPE },
  { TEXT, 194, 223, REST1 }, { TEXT, 225, 239, REST2 }, { TEXT, 241, 243, REST3 },
  { TEXT, 224, 224, AFTER_E0 }, { TEXT, 237, 237, AFTER_ED }, { TEXT, 240, 240, AFTER_F0 }, { TEXT, 244, 244, AFTER_F4 },
  { REST1, 128, 191, TEXT }, { REST2, 128, 191, REST1 }, { REST3, 128, 191, REST2 },
  { AFTER_E0, 160, 191, REST1 }, { AFTER_ED, 128, 159, REST1 }, { AFTER_F0, 144, 191, REST2 }, { AFTER_F4, 128, 143, REST2 },
}
for letter in ('"\\/bfnrt'):gmatch(".") do STEPS[#STEPS + 1] = { ESCAPE, letter:byte(), letter:byte(), TEXT } end
STEPS[#STEPS + 1] = { ESCAPE, 117, 117, HEX4 }
for state = HEX4, HEX1 do
  local following = state < HEX1 and state + 1 or TEXT
  for _, range in ipairs({ "09", "AF", "af" }) do
    STEPS[#STEPS + 1] = { state, range:byte(1), range:byte(2), following }
  end
end

local byte_steps = ffi.new("uint8_t[?]", (STOP + 1) * 256, STOP)
for _, step in ipairs(STEPS) do
  for byte = step[2], step[3] do byte_steps[step[1] * 256 + byte] = step[4] end
end

local words_of = ffi.typeof("const uint16_t *")

-- Return the number of a key in a list, which gets the value if the key is new.
local function number_of(key, value, list)
  if not list[key] then
    list[#list + 1] = value
    list[key] = #list
  end
  return list[key]
end

-- Return the next state of each state, for a byte or a pair of bytes. All with the same next states are a class.
local function targets_of(first, second)
  local targets = {}
  for state = TEXT, STOP do
    local target = byte_steps[state * 256 + first]
    targets[#targets + 1] = second and byte_steps[target * 256 + second] or target
  end
  return targets, table.concat(targets, ",")
end

-- Return the class of each pair of bytes, and the next states of each class.
local function classes_of_pairs()
  local bytes, pairs, class_of_byte, class_of_bytes = {}, {}, {}, {}
  for byte = 0, 255 do
    local _, key = targets_of(byte)
    class_of_byte[byte] = number_of(key, byte, bytes)
  end
  for first, one in ipairs(bytes) do
    for second, other in ipairs(bytes) do
      local targets, key = targets_of(one, other)
      class_of_bytes[first * 256 + second] = number_of(key, targets, pairs) - 1
    end
  end
  local class_of_pair, is_little = ffi.new("uint8_t[65536]"), ffi.abi("le")
  for first = 0, 255 do
    for second = 0, 255 do
      local word = is_little and second * 256 + first or first * 256 + second
      class_of_pair[word] = class_of_bytes[class_of_byte[first] * 256 + class_of_byte[second]]
    end
  end
  return class_of_pair, pairs
end

local class_of_pair, PAIR_TARGETS = classes_of_pairs()
-- From here on, a state is the place where its row begins. Of 64 bits, it is an index as it is: each step waits for the
-- one before, so that one instruction less in it saves a tenth of the time.
local ROW = #PAIR_TARGETS
local after = ffi.new("int64_t[?]", (STOP + 1) * ROW)
for class, targets in ipairs(PAIR_TARGETS) do
  for state = TEXT, STOP do after[state * ROW + class - 1] = targets[state + 1] * ROW end
end

-- The pairs that each of the four readings takes, and the pairs to search for the beginning of a character.
local PAIRS, REACH = 128, 16
local STARTED, STOPPED = TEXT + 0LL, STOP * ROW

-- Return the last place up to `at`, in pairs, at which a character begins and no escape is open.
local function beginning(p, at)
  for place = at, at - REACH + 1, -1 do
    local i = place * 2
    local is_inside = p[i] >= 128 and p[i] < 192
    if not is_inside and p[i - 1] ~= BACKSLASH and p[i - 2] ~= BACKSLASH and p[i - 3] ~= BACKSLASH then return place end
  end
end

-- Read on in a string, in a text of `size` bytes, whose last hundred bytes before `at` are good. Return the place from
-- which to read byte by byte, which may be a little before `at`.
function strings.good_end(p, at, size)
  local words, last = ffi.cast(words_of, p), bit.rshift(size, 1) - 4 * PAIRS
  local a = beginning(p, bit.rshift(at, 1))
  if not a then return at end
  while a <= last do
    -- Each begins at the last pair of the one before, so that no character is cut between them.
    local b = beginning(p, a + PAIRS - 1)
    local c = b and beginning(p, b + PAIRS - 1)
    local d = c and beginning(p, c + PAIRS - 1)
    if not d then return a * 2 end
    local s, t, u, v = STARTED, STARTED, STARTED, STARTED
    for i = 0, PAIRS - 1 do
      s = after[s + class_of_pair[words[a + i]]]
      t = after[t + class_of_pair[words[b + i]]]
      u = after[u + class_of_pair[words[c + i]]]
      v = after[v + class_of_pair[words[d + i]]]
    end
    if s == STOPPED then return a * 2 end
    if t == STOPPED then return b * 2 end
    if u == STOPPED then return c * 2 end
    if v == STOPPED then return d * 2 end
    a = beginning(p, d + PAIRS - 1)
    if not a then return d * 2 end
  end
  return a * 2
end
