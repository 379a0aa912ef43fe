-- Put the client's model name back into a response while it streams, editing no other byte.
-- A scanner reads the JSON as it arrives and knows its place only: the depth, and the key before. It holds back the one
-- string that is edited, from its opening quote to its closing one.

local restore = {}

local MAX_HELD_BYTES, MAX_KEY_BYTES = CONSTANTS.max_held_bytes, CONSTANTS.max_key_bytes

-- The scanner reads byte by byte: compiled, that is several times as fast as a pattern.
local bytes_of, marks_of = text.bytes_of, text.marks_of
local QUOTE, COMMA, OPEN_OBJECT, OPEN_ARRAY, CLOSE_OBJECT, CLOSE_ARRAY = 34, 44, 123, 91, 125, 93

local IN_STRING, BRACKETS, STRUCTURE = marks_of('"\\'), marks_of('"{}[]'), marks_of('"{}[]:,')
-- Bytes that may precede a document or separate its parts; the last three are a byte order mark.
local BLANKS = marks_of(" \t\r\n\239\187\191")

-- Return the place of the next of these marks from `at` on, counted from 1; behind the end where there is none.
local function seek(p, marks, at, size)
  while at <= size and marks[p[at - 1]] == 0 do at = at + 1 end
  return at
end

local Scanner = {}
Scanner.__index = Scanner

-- With all fields from the start: a table that grows is copied several times.
local function new_scanner(rename, tree)
  return setmetatable({
    rename = rename, tree = tree,
    depth = 0, watched = 0, -- `watched`: the number of open containers that may have a model, and their nodes
    nodes = {}, in_list = false, lists = {},
    key = false, wants_key = false, in_string = false, escaped = false,
    captured = false, is_target = false, is_over = false, overlong = false,
    suspects = false, unread = false, -- of documents that are no lines and no events
  }, Scanner)
end

function Scanner:reset()
  self.depth, self.watched, self.in_list = 0, 0, false
  self.key, self.wants_key = false, false
  self.in_string, self.escaped = false, false
  self.captured, self.is_target, self.is_over, self.overlong = false, false, false, false
end

-- Return the held bytes unedited: the document is broken or the stream is over.
function Scanner:flush()
  local held = self.in_string and self.is_target and self.captured or ""
  self.is_target, self.captured, self.is_over = false, false, true
  return held
end

function Scanner:open(mark)
  local node
  if self.depth == 0 then
    node = self.tree
  elseif self.depth == self.watched then
    local outer = self.nodes[self.watched]
    if self.in_list then node = outer.each else node = outer.below and outer.below[self.key] end
  end
  self.depth, self.key = self.depth + 1, false
  local is_list = mark == OPEN_ARRAY
  if not node or not (is_list and node.each or not is_list and node.below) then return end
  self.watched = self.depth
  self.nodes[self.depth], self.lists[self.depth] = node, is_list
  self.in_list, self.wants_key = is_list, not is_list
end

function Scanner:close()
  self.depth = self.depth - 1
  self.watched = math.min(self.watched, self.depth)
  self.in_list = self.watched > 0 and self.lists[self.watched]
  self.key, self.wants_key = false, false
  self.is_over = self.depth < 0 -- another document may follow
end

-- Return whether a value that begins here is a model.
function Scanner:at_target()
  if self.wants_key or not self.key or self.watched == 0 or self.depth ~= self.watched then return false end
  local below = self.nodes[self.watched].below
  local node = below and below[self.key]
  return node and node.is_model or false
end

-- Return the place of the closing quote of the string that is open at `at`, nil where the piece ends first.
function Scanner:quote_in(p, at, size)
  if self.escaped then
    self.escaped = false
    at = at + 1
  end
  while true do
    at = seek(p, IN_STRING, at, size)
    if at > size then return nil end
    if p[at - 1] == QUOTE then return at end
    if at == size then
      self.escaped = true
      return nil
    end
    at = at + 2
  end
end

function Scanner:capture(data, first, last, out)
  local is_key = self.captured and self.wants_key and #self.captured <= MAX_KEY_BYTES
  if not self.is_target and not is_key then return end
  self.captured = self.captured .. data:sub(first, last)
  if self.is_target and #self.captured > MAX_HELD_BYTES then
    out[#out + 1] = self.captured
    self.captured, self.overlong = "", true
  end
end

-- Return the key in a string's bytes, false if it is not a key or too long to matter.
local function key_in(text)
  if #text > MAX_KEY_BYTES then return false end
  if not text:find("\\", 1, true) then return text end
  local is_string, stop = pcall(json.string_at, text .. '"', 0)
  return is_string and stop == #text + 1 and escapes.decoded(text)
end

function Scanner:end_string(out)
  self.in_string = false
  if self.is_target then
    out[#out + 1] = self.overlong and self.captured .. '"' or self.rename(self.captured .. '"')
    self.is_target, self.overlong, self.key = false, false, false
  elseif self.wants_key and self.captured then
    self.key = key_in(self.captured)
  end
  self.captured = false
end

-- Read inside a string. Return the place to read on from, and the start of the bytes that may leave.
function Scanner:string(data, p, at, start, out)
  local quote = self:quote_in(p, at, #data)
  self:capture(data, at, quote and quote - 1 or #data, out)
  if not quote then return #data + 1, self.is_target and #data + 1 or start end
  if self.is_target then start = quote + 1 end
  self:end_string(out)
  return quote + 1, start
end

-- Pass a number, a word or nonsense: the value of the key, if any. Before the document it means that this is not JSON.
function Scanner:pass_scalar(p, at, place)
  while at < place and BLANKS[p[at - 1]] == 1 do at = at + 1 end
  if at == place then return end
  self.is_over, self.key = self.depth == 0, false
end

function Scanner:structure(data, p, at, start, out)
  local watched = self.depth <= self.watched
  local place = seek(p, watched and STRUCTURE or BRACKETS, at, #data)
  if watched and place > at then self:pass_scalar(p, at, place) end
  if place > #data or self.is_over then return #data + 1, start end
  local mark = p[place - 1]
  if mark == QUOTE and watched and self.wants_key and self.key then
    self.is_over = true -- a second key without a value between is no JSON
  elseif mark == QUOTE then
    self.in_string = true
    self.is_target = watched and self:at_target()
    self.captured = watched and ""
    if self.is_target then
      out[#out + 1] = data:sub(start, place - 1)
      self.captured, start = '"', place + 1
    end
  elseif mark == OPEN_OBJECT or mark == OPEN_ARRAY then
    self:open(mark)
  elseif mark == CLOSE_OBJECT or mark == CLOSE_ARRAY then
    self:close()
  else
    if mark == COMMA or not self.wants_key then self.key = false end
    self.wants_key = mark == COMMA and self.depth > 0 and self.depth == self.watched and not self.in_list
  end
  return place + 1, start
end

-- Return the next place of a text from `at` on. `found` keeps the places, so that a chunk is searched once.
local function next_place(chunk, text, at, found)
  if (found[text] or 0) < at then found[text] = chunk:find(text, at, true) or #chunk + 1 end
  return found[text]
end

-- Return the next place of any suspect from `at` on; behind the end if there is none.
local function next_suspect(chunk, at, found, suspects)
  local first = #chunk + 1
  for place = 1, #suspects do first = math.min(first, next_place(chunk, suspects[place], at, found)) end
  return first
end

-- Edit the next piece. Behind a model, a rest of it without suspects is read only if another piece follows.
function Scanner:feed(data)
  if self.unread then
    local unread = self.unread
    self.unread = false
    self:feed(unread)
  end
  if self.is_over then return data end
  local p, out, start, at, found = bytes_of(data), {}, 1, 1, {}
  while at <= #data and not self.is_over do
    if self.in_string then
      at, start = self:string(data, p, at, start, out)
      if start == at and self.suspects and next_suspect(data, at, found, self.suspects) > #data then
        self.unread = data:sub(at)
        break
      end
    else
      at, start = self:structure(data, p, at, start, out)
    end
  end
  if not (self.is_target and self.in_string) then out[#out + 1] = data:sub(start) end
  return table.concat(out)
end

-- Return a function that replaces each model by this name, a JSON string; with `keeps_resource` it keeps a resource name
-- up to the model.
function restore.always(replacement, keeps_resource)
  return function(model)
    if not keeps_resource then return replacement end
    local last, at = nil, model:find("models/", 1, true)
    while at do
      last = at + 6
      at = model:find("models/", last + 1, true)
    end
    return last and model:sub(1, last) .. replacement:sub(2) or replacement
  end
end

-- Return a function that replaces the models for which `asked_for` knows the client's name.
function restore.by_name(asked_for)
  return function(model)
    local sent = escapes.decoded(model:sub(2, -2)) or ""
    local name = asked_for(sent)
    return name and name ~= sent and escapes.quoted(name) or model
  end
end

-- Return an editor of a JSON response. `rename` takes and returns a JSON string; `tree` leads to the models.
function restore.json(rename, tree)
  local scanner = new_scanner(rename, tree)
  scanner.suspects = tree.suspects
  return scanner
end

local SseRestorer = {}
SseRestorer.__index = SseRestorer

-- Return an editor of the events of a stream.
function restore.sse(rename, tree)
  return setmetatable({
    scanner = new_scanner(rename, tree), suspects = tree.suspects,
    field = "", in_data = false, in_name = true, line_is_empty = true, after_cr = false, is_first_line = true,
  }, SseRestorer)
end

function SseRestorer:flush() return self.scanner:flush() end

local EVENT_END = "\n\n"

-- Return the last byte of the whole events from `at` on without suspects; `at - 1` where there are none.
local function harmless_end(chunk, at, found, suspects)
  local suspect = next_suspect(chunk, at, found, suspects)
  local last, stop = at - 1, next_place(chunk, EVENT_END, at, found)
  while stop + 1 < suspect and stop < #chunk do
    last = stop + 1
    stop = next_place(chunk, EVENT_END, last + 1, found)
  end
  return last
end

-- Pass part of a line: of a field's name, of data, or of a field that is never edited.
function SseRestorer:piece(piece)
  self.line_is_empty = false
  if self.in_data then return self.scanner:feed(piece) end
  if not self.in_name then return piece end
  local colon = piece:find(":", 1, true)
  if #self.field <= 8 then self.field = self.field .. piece:sub(1, math.min((colon or #piece + 1) - 1, 16)) end
  if not colon then return piece end
  self.in_name = false
  local field = self.field
  if self.is_first_line and field:sub(1, 3) == "\239\187\191" then field = field:sub(4) end
  self.in_data = field == "data"
  local rest = piece:sub(colon + 1)
  return piece:sub(1, colon) .. (self.in_data and self.scanner:feed(rest) or rest)
end

function SseRestorer:line_end(mark)
  if mark == "\n" and self.after_cr then -- the second half of CR LF
    self.after_cr = false
    return mark
  end
  self.after_cr = mark == "\r"
  local held = ""
  if self.in_data and self.scanner.in_string then held = self.scanner:flush() end
  if self.line_is_empty then self.scanner:reset() end
  self.field, self.in_data, self.is_first_line = "", false, false
  self.in_name, self.line_is_empty = true, true
  return held .. mark
end

-- Return whether the next bytes begin a line while no JSON is open.
function SseRestorer:is_between()
  return self.line_is_empty and not self.after_cr and not self.is_first_line and self.scanner.depth == 0
end

function SseRestorer:feed(chunk)
  local out, at, found = {}, 1, {}
  while at <= #chunk do
    local last = self:is_between() and harmless_end(chunk, at, found, self.suspects) or 0
    if last >= at then
      self.scanner:reset()
      out[#out + 1] = chunk:sub(at, last)
      at = last + 1
    else
      at = self:line(chunk, at, out)
    end
  end
  return table.concat(out)
end

-- Pass the rest of a line in this chunk. Return the place where the next one begins.
function SseRestorer:line(chunk, at, out)
  local stop = chunk:find("[\r\n]", at) or #chunk + 1
  if stop > at then
    out[#out + 1] = self:piece(chunk:sub(at, stop - 1))
    self.after_cr = false
  end
  if stop <= #chunk then out[#out + 1] = self:line_end(chunk:sub(stop, stop)) end
  return stop + 1
end

-- End a document of JSON Lines.
local function document_end(self, mark)
  local held = self.scanner:flush()
  self.scanner:reset()
  self.line_is_empty, self.is_first_line = true, false
  return held .. mark
end

-- Return an editor of JSON Lines: each line is a document.
function restore.json_lines(rename, tree)
  local restorer = restore.sse(rename, tree)
  restorer.in_data, restorer.line_end = true, document_end
  return restorer
end
