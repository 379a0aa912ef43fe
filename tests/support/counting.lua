-- Count the work of functions: instructions of the interpreter, and bytes that string functions copy or search.
-- LuaJIT's pattern matching is C, whose work no hook counts, so it is done here in Lua as lstrlib.c does it.

jit.off()
jit.flush()

local work, STEP = 0, 100
local real = { sub = string.sub, find = string.find, byte = string.byte, format = string.format }
local concat = table.concat
local SPECIAL = "[%^%$%*%+%?%.%(%)%[%%%-]"

local CLASSES = {
  a = "[A-Za-z]", d = "[0-9]", w = "[A-Za-z0-9]", x = "[A-Fa-f0-9]", s = "[\t-\r ]", c = "[%z\1-\31\127]", z = "%z",
}

local function in_class(byte, class)
  local lower = class:lower()
  if not CLASSES[lower] then return byte == real.byte(class) end
  local found = real.find(string.char(byte), CLASSES[lower]) ~= nil
  return found == (class == lower)
end

-- Return the place behind the single pattern at `p`.
local function single_end(pattern, p)
  local mark = real.sub(pattern, p, p)
  if mark == "%" then return p + 2 end
  if mark ~= "[" then return p + 1 end
  p = real.sub(pattern, p + 1, p + 1) == "^" and p + 2 or p + 1
  repeat
    p = real.sub(pattern, p, p) == "%" and p + 2 or p + 1
  until real.sub(pattern, p, p) == "]"
  return p + 1
end

local function in_set(byte, pattern, p, last)
  local wanted = real.sub(pattern, p + 1, p + 1) ~= "^"
  p = wanted and p + 1 or p + 2
  while p < last do
    local mark = real.sub(pattern, p, p)
    if mark == "%" then
      if in_class(byte, real.sub(pattern, p + 1, p + 1)) then return wanted end
      p = p + 2
    elseif real.sub(pattern, p + 1, p + 1) == "-" and p + 2 < last then
      if byte >= real.byte(mark) and byte <= real.byte(pattern, p + 2) then return wanted end
      p = p + 3
    else
      if byte == real.byte(mark) then return wanted end
      p = p + 1
    end
  end
  return not wanted
end

local function fits(text, at, pattern, p, stop)
  local byte = real.byte(text, at)
  if not byte then return false end
  local mark = real.sub(pattern, p, p)
  if mark == "." then return true end
  if mark == "%" then return in_class(byte, real.sub(pattern, p + 1, p + 1)) end
  if mark == "[" then return in_set(byte, pattern, p, stop - 1) end
  return byte == real.byte(mark)
end

local match_at

local function repeated(text, at, pattern, p, stop, least, captures)
  local count = 0
  while fits(text, at + count, pattern, p, stop) do count = count + 1 end
  for size = count, least, -1 do
    local last = match_at(text, at + size, pattern, stop + 1, captures)
    if last then return last end
  end
end

-- Return the place behind the match of the pattern from `p` on at `at`, nil where there is none.
function match_at(text, at, pattern, p, captures)
  local mark, following = real.sub(pattern, p, p), real.sub(pattern, p, p + 1)
  if mark == "" then return at end
  if following == "()" then
    captures[#captures + 1] = at
    local last = match_at(text, at, pattern, p + 2, captures)
    if not last then captures[#captures] = nil end
    return last
  elseif mark == "(" then
    captures[#captures + 1] = { at }
    local last = match_at(text, at, pattern, p + 1, captures)
    if not last then captures[#captures] = nil end
    return last
  elseif mark == ")" then
    local open = #captures
    while type(captures[open]) ~= "table" do open = open - 1 end
    local start = captures[open][1]
    captures[open] = real.sub(text, start, at - 1)
    local last = match_at(text, at, pattern, p + 1, captures)
    if not last then captures[open] = { start } end
    return last
  elseif mark == "$" and p == #pattern then
    return at == #text + 1 and at or nil
  end
  local stop = single_end(pattern, p)
  local suffix = real.sub(pattern, stop, stop)
  if suffix == "*" or suffix == "+" then
    return repeated(text, at, pattern, p, stop, suffix == "+" and 1 or 0, captures)
  end
  assert(suffix ~= "-" and suffix ~= "?", "a quantifier that this matcher does not know")
  return fits(text, at, pattern, p, stop) and match_at(text, at + 1, pattern, stop, captures) or nil
end

local function search(text, pattern, at)
  local is_anchored = real.sub(pattern, 1, 1) == "^"
  repeat
    local captures = {}
    local last = match_at(text, at, pattern, is_anchored and 2 or 1, captures)
    if last then return at, last, captures end
    at = at + 1
  until is_anchored or at > #text + 1
end

function string.find(text, pattern, at, is_plain)
  at = at or 1
  if is_plain or not real.find(pattern, SPECIAL) then
    local first, last = real.find(text, pattern, at, true)
    work = work + (first or #text) - at + 1
    return first, last
  end
  local first, last = search(text, pattern, at)
  if first then return first, last - 1 end
end

function string.match(text, pattern, at)
  local first, last, captures = search(text, pattern, at or 1)
  if not first then return nil end
  if #captures == 0 then return real.sub(text, first, last - 1) end
  return unpack(captures)
end

function string.gsub(text, pattern, replacement)
  local out, at, count = {}, 1, 0
  while at <= #text + 1 do
    local first, last, captures = search(text, pattern, at)
    if not first then break end
    local whole = real.sub(text, first, last - 1)
    local new = replacement
    if type(replacement) == "function" then new = replacement(captures[1] or whole, captures[2]) or whole end
    out[#out + 1] = real.sub(text, at, first - 1)
    out[#out + 1] = new
    count = count + 1
    at = last > first and last or first + 1
    if last == first then out[#out + 1] = real.sub(text, first, first) end
  end
  out[#out + 1] = real.sub(text, at)
  work = work + #text
  return concat(out), count
end
function string.gmatch() error("gmatch is not counted; use text.split") end

function string.sub(text, first, last)
  local part = real.sub(text, first, last)
  work = work + #part
  return part
end

function table.concat(parts, separator)
  local whole = concat(parts, separator)
  work = work + #whole
  return whole
end

-- Return a function that calls another one, which may refuse, and returns the work that it takes.
function counted(called)
  return function(...)
    work = 0
    debug.sethook(function() work = work + STEP end, "", STEP)
    local done, fault = pcall(called, ...)
    debug.sethook()
    assert(done or type(fault) == "table", fault)
    return work
  end
end
