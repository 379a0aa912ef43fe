-- Count the work of functions: instructions of the interpreter, and bytes that string functions copy or search.
-- Patterns are matched in C, whose work no hook counts; `pattern_steps(pattern, text, at, is_all, first match)` knows it.

jit.off()
jit.flush()

local pattern_steps = ...
local work, STEP = 0, 100
-- Instructions for a step of a pattern, so that steps stand out beside the instructions around them.
local OF_A_STEP = 30
local real = { sub = string.sub, find = string.find, match = string.match, gsub = string.gsub, gmatch = string.gmatch }
local concat = table.concat
local SPECIAL = "[%^%$%*%+%?%.%(%)%[%%%-]"

local function count_steps(text, pattern, at, is_all)
  at = at or 1
  work = work + OF_A_STEP * pattern_steps(pattern, text, at, is_all, real.find(text, pattern, at) or 0)
end

function string.find(text, pattern, at, is_plain)
  if is_plain or not real.find(pattern, SPECIAL) then
    work = work + (real.find(text, pattern, at, true) or #text) - (at or 1) + 1
  else
    count_steps(text, pattern, at, false)
  end
  return real.find(text, pattern, at, is_plain)
end

function string.match(text, pattern, at)
  count_steps(text, pattern, at, false)
  return real.match(text, pattern, at)
end

function string.gmatch(text, pattern)
  count_steps(text, pattern, 1, true)
  return real.gmatch(text, pattern)
end

function string.gsub(text, pattern, replacement)
  count_steps(text, pattern, 1, true)
  work = work + #text
  return real.gsub(text, pattern, replacement)
end

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
return function(called)
  return function(...)
    work = 0
    debug.sethook(function() work = work + STEP end, "", STEP)
    local done, fault = pcall(called, ...)
    debug.sethook()
    assert(done or type(fault) == "table", fault)
    return work
  end
end
