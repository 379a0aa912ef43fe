-- Model, token counts, stop reason and error of a response, for the access log.
-- Upstreams are not trusted: impossible counts and names are ignored.

local usage = {}

local MAX_JSON_BYTES, MAX_LINE_BYTES = CONSTANTS.max_json_bytes, CONSTANTS.max_line_bytes
local MAX_FRAME_BYTES = CONSTANTS.max_frame_bytes
local MAX_TOKENS, COUNTS, STOP_REASONS = CONSTANTS.max_tokens, CONSTANTS.counts, CONSTANTS.stop_reasons
local LINE_END = 10

local set_of = text.set_of

-- The members of a part that are read, and those of its token counts.
local PART = set_of({
  "message", "response", "delta", "model", "modelVersion", "error", "type", "code", "object", "status",
  "incomplete_details", "interaction",
})
for _, place in ipairs(STOP_REASONS) do PART[place[1]] = true end
for _, counts in ipairs(COUNTS) do PART[counts.within] = true end
local PARTS = { "message", "response", "delta", "interaction" }
local ERROR, REASON = set_of({ "type", "code", "status" }), set_of({ "reason" })

local function is_object(value) return value and value:byte() == 123 end

local function text_in(value, pattern, limit)
  local text = value and value:sub(1, 1) == '"' and escapes.decoded(value:sub(2, -2))
  return text and #text <= limit and text:match(pattern) or nil
end

-- The names of errors, stop reasons and models.
local function name_in(value) return text_in(value, "^[%w_.:-]+$", 64) end
local function model_in(value) return text_in(value, "^[%w_.:/@+ %[%]()-]+$", 256) end

local function count_in(value)
  local count = value and value:match("^%d+$") and tonumber(value)
  return count and count <= MAX_TOKENS and count or nil
end

-- Return the raw text at a place below a value; nil where there is none.
local function value_at(value, place, from)
  for step = from, #place do
    if not value then return nil end
    local name = place[step]
    if type(name) == "number" then
      value = json.items(value)[name + 1]
    else
      value = json.fields(value, { [name] = true })[name]
    end
  end
  return value
end

-- Return the type of an error that has no name, such as `error_429`.
local function numbered(code)
  return code and code:find("^[1-9]%d%d$") and "error_" .. code or "error"
end

local function error_in(part)
  if is_object(part.error) then
    local told = json.fields(part.error, ERROR)
    return name_in(told.type) or name_in(told.code) or name_in(told.status) or numbered(told.code)
  end
  return name_in(part.type) == "error" and (name_in(part.code) or numbered(part.code)) or nil
end

local function stop_reason_in(part)
  for _, place in ipairs(STOP_REASONS) do
    local reason = part[place[1]] and name_in(value_at(part[place[1]], place, 2))
    if reason then return reason end
  end
  -- Its status, or the reason if it is incomplete.
  if not CONSTANTS.with_status[name_in(part.object) or ""] then return nil end
  local status = name_in(part.status)
  if status and CONSTANTS.unfinished[status] then return nil end
  local details = part.incomplete_details
  return details and name_in(json.fields(details, REASON).reason) or status
end

-- Return the sum of the counts at the places of the first API that has any; nil for none.
local function sum_at(apis, fields)
  for _, places in ipairs(apis) do
    local sum
    for _, place in ipairs(places) do
      local count = count_in(value_at(fields[place[1]], place, 2))
      if count then sum = (sum or 0) + count end
    end
    if sum then return sum end
  end
end

-- Of a count in two objects the last one is used.
local function add_tokens(told, part)
  for _, counts in ipairs(COUNTS) do
    if is_object(part[counts.within]) then
      local fields = json.fields(part[counts.within], counts.members)
      for name, apis in pairs(counts.places) do told[name] = sum_at(apis, fields) or told[name] end
    end
  end
end

local function add_part(told, part)
  add_tokens(told, part)
  told.model = model_in(part.model or part.modelVersion) or told.model
  told.stop_reason = stop_reason_in(part) or told.stop_reason
  told.error = error_in(part) or told.error
end

local function add(told, text)
  if text:find("^%s*%[") then -- Gemini streams an array of chunks to clients that do not ask for events
    for _, item in ipairs(json.items(text)) do add(told, item) end
    return
  end
  local data = json.fields(text, PART)
  add_part(told, data)
  for _, name in ipairs(PARTS) do
    local part = data[name] and json.fields(data[name], PART)
    if part and name == "interaction" then part.object = part.object or '"interaction"' end -- may be left out
    if part then add_part(told, part) end
  end
end

-- Return the findings in a response or an event; none where it is not JSON.
local function told_by(text)
  local told = {}
  pcall(add, told, text)
  return told
end

local Reader = {}
Reader.__index = Reader

-- Reads responses. The model is read once: some APIs repeat it in each event.
local function new_reader()
  return setmetatable({ is_named = false, is_ended = false, pieces = {}, size = 0 }, Reader)
end

-- Return whether a text may contain anything to read.
function Reader:tells(text)
  if not self.is_named and text:find('"model', 1, true) then return true end
  for _, mark in ipairs(CONSTANTS.usage_marks) do
    if text:find(mark[1], 1, true) and (not mark[2] or text:find(mark[2])) then return true end
  end
  return false
end

-- Keep a piece of an unfinished text, up to the limit.
function Reader:keep(piece, limit)
  self.size = self.size + #piece
  if self.size > limit then self.pieces = {} else self.pieces[#self.pieces + 1] = piece end
end

function Reader:whole()
  local text = table.concat(self.pieces)
  self.pieces, self.size = {}, 0
  return text
end

-- Add the findings in an event to those before.
function Reader:add(told, text)
  told = told or {}
  for name, value in pairs(told_by(text)) do told[name] = value end
  self.is_named, self.is_ended = self.is_named or told.model ~= nil, self.is_ended or told.stop_reason ~= nil
  return told
end

-- Return whether a stream of events has named its model and not yet the reason of its end.
function Reader:is_open() return self.is_named and not self.is_ended end

local Events = setmetatable({}, Reader)
Events.__index = Events

function usage.sse() return setmetatable(new_reader(), Events) end

function Events:line(line, told)
  if line:sub(1, 5) ~= "data:" or not self:tells(line) then return told end
  return self:add(told, line:sub(6))
end

-- Read a piece of the response. Return the fields found in it, nil where there are none.
function Events:feed(chunk)
  -- Most pieces of a stream are whole events without anything to read.
  if self.size == 0 and chunk:byte(-1) == LINE_END and not self:tells(chunk) then return nil end
  local told, at, stop = nil, 1, chunk:find("\n", 1, true)
  while stop do
    self:keep(chunk:sub(at, stop), MAX_LINE_BYTES)
    told = self:line(self:whole(), told)
    at = stop + 1
    stop = chunk:find("\n", at, true)
  end
  if at <= #chunk then self:keep(chunk:sub(at), MAX_LINE_BYTES) end
  return told
end

function Events:finish() return self:line(self:whole(), nil) end

local Answer = setmetatable({}, Reader)
Answer.__index = Answer

function usage.json() return setmetatable(new_reader(), Answer) end

function Answer:feed(chunk) self:keep(chunk, MAX_JSON_BYTES) end

function Answer:finish()
  local text = self:whole()
  return self:tells(text) and told_by(text) or nil
end

local Frames = setmetatable({}, Reader)
Frames.__index = Frames

-- Read Bedrock's binary event stream, of InvokeModel and of Converse.
function usage.frames()
  local reader = setmetatable(new_reader(), Frames)
  reader.wanted, reader.is_lost = frames.PRELUDE, false
  return reader
end

function Frames:feed(chunk)
  if self.is_lost then return nil end
  self.pieces[#self.pieces + 1], self.size = chunk, self.size + #chunk
  if self.size < self.wanted then return nil end -- the frame is not complete
  local data, told, at = self:whole(), nil, 1
  local size = frames.size_at(data, at)
  while size and size > 0 and at + size - 1 <= #data do
    local event = frames.event(data, at, size)
    if event then told = self:add(told, event) end
    at = at + size
    size = frames.size_at(data, at)
  end
  self.wanted = size or frames.PRELUDE
  -- An invalid frame hides the beginning of the next one.
  self.is_lost = size == 0 or self.wanted > MAX_FRAME_BYTES
  if not self.is_lost then self.pieces, self.size = { data:sub(at) }, #data - at + 1 end
  return told
end

function Frames:finish() return nil end
