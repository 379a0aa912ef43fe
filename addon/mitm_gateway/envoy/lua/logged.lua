-- Texts of a client as the access log shows them.

local logged = {}

local KEY_MARKS, MAX_NAME = CONSTANTS.key_marks, CONSTANTS.max_logged_name

local function has_key_mark(value)
  for place = 1, #KEY_MARKS do
    if text.has(value, KEY_MARKS[place]) then return true end
  end
  return false
end

-- Return a text, masked where it has something like a key.
function logged.masked(value) return has_key_mark(value) and CONSTANTS.mask or value end

-- Return the first value of these headers that is a plain name without anything like a key.
function logged.name(headers, names)
  for place = 1, #names do
    local value = headers:get(names[place])
    if value and #value <= MAX_NAME and value:find("^[%w_.:-]+$") and not has_key_mark(value) then return value end
  end
end
