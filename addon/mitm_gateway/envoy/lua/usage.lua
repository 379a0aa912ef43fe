-- Model, token counts and error of a response, for the access log.
-- Upstreams are not trusted: impossible counts and names are ignored.

local usage = {}

local MAX_JSON_BYTES, MAX_LINE_BYTES = CONSTANTS.max_json_bytes, CONSTANTS.max_line_bytes
local MAX_TOKENS = CONSTANTS.max_tokens
local LINE_END = 10

local ANSWER = {
  message = true, response = true, delta = true, model = true, usage = true, error = true, type = true, code = true,
}
local TOKENS = {
  input_tokens = true, output_tokens = true, prompt_tokens = true, completion_tokens = true,
  cache_read_input_tokens = true, input_tokens_details = true, prompt_tokens_details = true,
}
local PARTS = { "message", "response", "delta" }
local ERROR, DETAILS = { type = true, code = true, status = true }, { cached_tokens = true }

local function text_in(value, pattern, limit)
  local text = value and value:sub(1, 1) == '"' and escapes.decoded(value:sub(2, -2))
  return text and #text <= limit and text:match(pattern) or nil
end

-- The names of errors and of models.
local function name_in(value) return text_in(value, "^[%w_.:-]+$", 64) end
local function model_in(value) return text_in(value, "^[%w_.:/@+ %[%]()-]+$", 256) end

local function count_in(value)
  local count = value and value:match("^%d+$") and tonumber(value)
  return count and count <= MAX_TOKENS and count or nil
end

local function error_in(part)
  if part.error and part.error:sub(1, 1) == "{" then
    local told = json.fields(part.error, ERROR)
    return name_in(told.type) or name_in(told.code) or name_in(told.status) or "error"
  end
  return name_in(part.type) == "error" and (name_in(part.code) or "error") or nil
end

local function cached_in(details) return details and count_in(json.fields(details, DETAILS).cached_tokens) end

local function add_tokens(told, usage)
  local tokens = json.fields(usage, TOKENS)
  told.input_tokens = count_in(tokens.input_tokens) or count_in(tokens.prompt_tokens) or told.input_tokens
  told.output_tokens = count_in(tokens.output_tokens) or count_in(tokens.completion_tokens) or told.output_tokens
  told.cache_read_tokens = count_in(tokens.cache_read_input_tokens) or cached_in(tokens.prompt_tokens_details)
    or cached_in(tokens.input_tokens_details) or told.cache_read_tokens
end

local function add_part(told, part)
  if part.usage then add_tokens(told, part.usage) end
  told.model = model_in(part.model) or told.model
  told.error = error_in(part) or told.error
end

local function add(told, text)
  local data = json.fields(text, ANSWER)
  add_part(told, data)
  for _, name in ipairs(PARTS) do
    if data[name] then add_part(told, json.fields(data[name], ANSWER)) end
  end
end

local Reader = {}
Reader.__index = Reader

-- Reads responses. Without `wants_model` the model is ignored, which some APIs repeat in each event.
local function new_reader(wants_model)
  return setmetatable({ wants_model = wants_model, pieces = {}, size = 0 }, Reader)
end

-- Report whether a text may contain anything to read.
function Reader:tells(text)
  return (text:find('"usage"', 1, true) and text:find('"usage"%s*:%s*{'))
    or text:find('"error"', 1, true)
    or (self.wants_model and text:find('"model"', 1, true))
end

-- Return the fields found in a response or an event; none where it is not JSON.
function Reader:told_by(text)
  local told = {}
  pcall(add, told, text)
  if not self.wants_model then told.model = nil end
  return told
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

local Events = setmetatable({}, Reader)
Events.__index = Events

function usage.sse(wants_model) return setmetatable(new_reader(wants_model), Events) end

function Events:line(line, told)
  if line:sub(1, 5) ~= "data:" or not self:tells(line) then return told end
  told = told or {}
  for name, value in pairs(self:told_by(line:sub(6))) do told[name] = value end
  self.wants_model = self.wants_model and not told.model
  return told
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

function usage.json(wants_model) return setmetatable(new_reader(wants_model), Answer) end

function Answer:feed(chunk) self:keep(chunk, MAX_JSON_BYTES) end

function Answer:finish()
  local text = self:whole()
  return self:tells(text) and self:told_by(text) or nil
end
