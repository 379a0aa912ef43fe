-- What Envoy cannot do by itself: who is let in, the model that decides, edits of the body, the name in the answer.
-- Envoy's routes decide which rule takes a request; LISTENER holds what its rules do, in the order of the file.
-- Each call of a handle or of headers leaves the compiled code and costs about as much as a hundred bytes of JSON,
-- so none is made that is not needed.

local MAX_PATH_BYTES = 8192
-- What the filter tells Envoy's routes: the path stands in normal form, the model, the client's key.
local PATH, MODEL, KEY = "x-mitm-gateway-path", "x-mitm-gateway-model", "x-mitm-gateway-moved"
local NO_MODEL = "-"
-- Read again at most this often, so that a changed file of client keys is in force within two seconds.
local CLIENTS_TTL_S = 1

local ERROR_TYPES = {
  [400] = "invalid_request_error", [401] = "authentication_error", [403] = "permission_error",
  [404] = "not_found_error", [413] = "request_too_large", [502] = "api_error",
}
local OPENAI_PATHS = {
  "chat/completions", "completions", "responses", "embeddings", "images", "audio", "moderations",
}

local function set_of(names)
  local set = {}
  for _, name in ipairs(names) do set[name] = true end
  return set
end

local QUERY_SECRETS = set_of({ "key", "apikey", "xapikey", "accesstoken" })
local PLACEHOLDERS = set_of({
  "", "-", "x", "xxx", "none", "null", "dummy", "placeholder", "no-key", "not-needed",
})

-- What most requests have is looked up, before a closer look.
local FORWARDED = set_of({ "POST", "GET", "HEAD" })
local UNSENT = set_of({ "TRACE", "TRACK" })

local function refuse(status, reason, retry)
  error({ status = status, reason = reason, retry = retry }, 0)
end

-- ---- texts ----

-- Writes names as JSON strings, and keeps the last one: the next is mostly the same.
local function new_writer()
  local last, written
  return function(name)
    if name ~= last then last, written = name, json.quoted(name) end
    return written
  end
end

local write_sent, write_asked = new_writer(), new_writer()

-- A glob as its literals between the stars; the time grows with the text, not with its power.
local function covers(literals, text)
  local count = #literals
  if count == 1 then return literals[1] == text end
  local first, last = literals[1], literals[count]
  local limit = #text - #last
  if #first > limit or text:sub(1, #first) ~= first or text:sub(limit + 1) ~= last then return false end
  local at = #first + 1
  for place = 2, count - 1 do
    local start, finish = text:find(literals[place], at, true)
    if not start or finish > limit then return false end
    at = finish + 1
  end
  return true
end

local function any_covers(globs, text)
  for _, literals in ipairs(globs) do
    if covers(literals, text) then return true end
  end
  return false
end

-- Compiled, as a search by a pattern is not.
local function has(text, part) return text:find(part, 1, true) ~= nil end

-- Blanks beyond ASCII's, in UTF-8.
local WIDE_BLANKS = {
  "[%s\28-\31]", "\194[\133\160]", "\225\154\128", "\226\128[\128-\138\168\169\175]", "\226\129\159", "\227\128\128",
}

local function trimmed(text)
  text = text:match("^%s*(.-)%s*$")
  while text:find("^[\28-\31\128-\255]") or text:find("[\28-\31\128-\255]$") do
    local before = text
    for _, blank in ipairs(WIDE_BLANKS) do text = text:gsub("^" .. blank, ""):gsub(blank .. "$", "") end
    if text == before then return text end
  end
  return text
end

local function unquoted(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function quoted(text)
  return (text:gsub("[^%w%-._~:@]", function(byte) return string.format("%%%02X", byte:byte()) end))
end

-- A text as a header's value that Envoy's routes can be matched on.
local function as_value(text)
  return (text:gsub("[^!-$&-~]", function(byte) return string.format("%%%02X", byte:byte()) end))
end

-- The path with needlessly encoded letters, digits and -._~ decoded (RFC 3986, 6.2.2.2).
local function normal_path(path)
  if not has(path, "%") then return path end
  return (path:gsub("%%(%x%x)", function(hex)
    local character = string.char(tonumber(hex, 16))
    return character:find("[%w%-._~]") and character or nil
  end))
end

-- Whether a path has dot segments or empty segments, also percent-encoded once or twice. A final slash is no empty
-- segment, a backslash counts as a slash, and "..;x" as a dot segment.
local function has_odd_segments(path)
  if not has(path, "//") and not has(path, "/.") and not has(path, "%") and not has(path, "\\") then return false end
  for _ = 1, 3 do
    local rest = path:gsub("\\", "/"):match("^[^/]*/(.*)$")
    if rest then
      for segment in (rest:gsub("/$", "") .. "/"):gmatch("([^/]*)/") do
        local name = segment:match("^[^;]*")
        if (name == "" or name == "." or name == "..") and segment:sub(1, 1) ~= ";" and rest ~= "" then return true end
      end
    end
    if not has(path, "%") then return false end
    path = unquoted(path)
  end
  return false
end

local MODELS_IN_PATHS = {
  "/model/()[^/]+()/invoke[^/]*$", "/models/()[^/:]+@?[^/:]*():%a+$", "/deployments/()[^/]+()/",
}

-- The model that a path names, and where it stands: Bedrock; Vertex and Gemini; Azure.
local function path_model(path)
  if not has(path, "/model") and not has(path, "/deployments/") then return nil end
  local first, last
  for _, pattern in ipairs(MODELS_IN_PATHS) do -- the leftmost counts
    local start, finish = path:match(pattern)
    if start and not (first and first <= start) then first, last = start, finish end
  end
  if not first or path:sub(first, last - 1) == "count-tokens" then return nil end
  return unquoted(path:sub(first, last - 1)), first, last
end

-- ---- local answers ----

local function is_openai(path)
  for _, name in ipairs(OPENAI_PATHS) do
    local first, last = path:find("/" .. name, 1, true)
    while first do
      if last == #path or path:sub(last + 1, last + 1) == "/" then return true end
      first, last = path:find("/" .. name, last, true)
    end
  end
  return false
end

local function answer(handle, refusal, path, rule)
  local kind = ERROR_TYPES[refusal.status] or "api_error"
  local message = "mitm-gateway: " .. refusal.reason
  if rule then message = message .. ' (rule "' .. rule.name .. '")' end
  local text = json.quoted(message)
  local body
  if is_openai(path) then
    body = '{"error": {"message": ' .. text .. ', "type": "' .. kind .. '", "param": null, "code": null}}'
  else
    body = '{"type": "error", "error": {"type": "' .. kind .. '", "message": ' .. text .. "}}"
  end
  local headers = { [":status"] = tostring(refusal.status), ["content-type"] = "application/json" }
  if not refusal.retry then headers["x-should-retry"] = "false" end
  handle:respond(headers, body)
end

-- ---- who is let in ----

local function is_listed(origin)
  return LISTENER.origins[(trimmed(origin):lower():gsub("/+$", ""))]
end

local function check_origin(headers)
  local origin = headers:get("origin")
  if origin and not is_listed(origin) then
    refuse(403, "web pages may not use this gateway; export with --origin to allow one")
  end
  local site = headers:get("sec-fetch-site")
  if not origin and site and site:lower():find("cross-site", 1, true) then
    refuse(403, "cross-site requests of web pages may not use this gateway")
  end
end

local function check_path(path)
  if #path > MAX_PATH_BYTES then refuse(400, "the path is longer than " .. MAX_PATH_BYTES .. " characters") end
  if has_odd_segments(path) then refuse(400, "the path has dot or empty segments") end
end

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function from_base64(text)
  local out, bits, count = {}, 0, 0
  for character in text:gsub("=+$", ""):gmatch(".") do
    local value = ALPHABET:find(character, 1, true)
    if not value then return "" end
    bits, count = bits * 64 + value - 1, count + 6
    if count >= 8 then
      count = count - 8
      out[#out + 1] = string.char(math.floor(bits / 2 ^ count))
      bits = bits % 2 ^ count
    end
  end
  return table.concat(out)
end

-- A key without its auth scheme; the password of a Basic one.
local function bare_key(value)
  value = trimmed(value)
  local scheme, rest = value:match("^(%a+) (.*)$")
  scheme = scheme and scheme:lower()
  if scheme == "bearer" or scheme == "token" then return trimmed(rest) end
  if scheme == "basic" then return from_base64(rest):match(":(.*)$") or "" end
  return value
end

local clients = { keys = {}, read_at = -CLIENTS_TTL_S }

local function client_keys()
  local now = os.time()
  if now - clients.read_at >= CLIENTS_TTL_S then
    clients.read_at = now
    local file = io.open(LISTENER.clients, "rb")
    if file then
      local keys = {}
      for line in file:read("*a"):gmatch("[^\r\n]+") do
        line = trimmed(line)
        if line ~= "" and line:sub(1, 1) ~= "#" then keys[#keys + 1] = line end
      end
      file:close()
      clients.keys = keys
    end
  end
  return clients.keys
end

-- Whether a value is a client's key, in a time that does not depend on which or how nearly.
local function knows_key(value)
  local found = false
  for _, key in ipairs(client_keys()) do
    local differing = bit.bxor(#key, #value)
    for place = 1, #key do
      differing = bit.bor(differing, bit.bxor(key:byte(place), value:byte(place) or 0))
    end
    found = found or differing == 0
  end
  return found
end

-- Each value of a header; joined they would be one key that is nobody's, or hide another vendor's.
local function values(headers, name)
  local all = {}
  for place = 0, headers:getNumValues(name) - 1 do all[place + 1] = headers:getAtIndex(name, place) end
  return all
end

local KEY_SLOTS = { "x-api-key", "authorization", "proxy-authorization" }

-- Asks for a client's key where keys are configured, and takes it out: it is nobody else's business.
local function check_client_key(headers, is_probe)
  if not LISTENER.clients then return end
  local known = false
  for _, name in ipairs(KEY_SLOTS) do
    local others, all = {}, values(headers, name)
    for _, value in ipairs(all) do
      if not knows_key(bare_key(value)) then others[#others + 1] = value end
    end
    if #others < #all then
      known = true
      headers:remove(name)
      for _, value in ipairs(others) do headers:add(name, value) end
    end
  end
  if not known and not is_probe then refuse(401, "a client key is needed; ask whoever runs this gateway for one") end
end

-- ---- edits of the head ----

-- The client's own key; a placeholder is none.
local function client_key(headers, prefer)
  local names = prefer == "authorization" and { "authorization", "x-api-key" } or { "x-api-key", "authorization" }
  for _, name in ipairs(names) do
    -- Envoy has joined several of Authorization by commas.
    local each = name == "authorization" and "[^,]+" or ".+"
    for _, field in ipairs(values(headers, name)) do
      for value in field:gmatch(each) do
        local key = bare_key(value)
        if not PLACEHOLDERS[key:lower()] then return key end
      end
    end
  end
end

-- The client's key for a rule that moves it. Refused: there is none, or it is another vendor's.
local function moved_key(headers, rule)
  local key = client_key(headers, rule.client.prefer)
  if not key then
    refuse(401, "this rule moves the client's key, and the client sent none in x-api-key or Authorization")
  end
  if rule.client.refuses_anthropic and key:sub(1, 7) == "sk-ant-" then
    refuse(403, "an Anthropic key does not go to another vendor; name a credential, or allow_anthropic_key: true")
  end
  return key
end

local function strip_websocket_key(headers)
  local value = headers:get("sec-websocket-protocol")
  if not value or not value:lower():find("openai-insecure-api-key.", 1, true) then return end
  local kept = {}
  for part in value:gmatch("[^,]+") do
    if not trimmed(part):lower():find("^openai%-insecure%-api%-key%.") then kept[#kept + 1] = trimmed(part) end
  end
  if #kept == 0 then headers:remove("sec-websocket-protocol") end
  if #kept > 0 then headers:replace("sec-websocket-protocol", table.concat(kept, ", ")) end
end

local function edited_betas(beta, names)
  local kept, seen, changed = {}, {}, false
  local function add(name)
    if not seen[name] then
      seen[name] = true
      kept[#kept + 1] = name
    end
  end
  for _, name in ipairs(names) do
    local stays = (not beta.keep or any_covers(beta.keep, name)) and not any_covers(beta.drop, name)
    if stays then add(beta.rename[name] or name) end
  end
  for _, name in ipairs(beta.add) do add(name) end
  changed = #kept ~= #names
  for place, name in ipairs(names) do changed = changed or kept[place] ~= name end
  return kept, changed
end

local function edit_beta_header(headers, beta)
  local names = {}
  for name in (headers:get("anthropic-beta") or ""):gmatch("[^,]+") do
    if trimmed(name) ~= "" then names[#names + 1] = trimmed(name) end
  end
  local kept, changed = edited_betas(beta, names)
  if not changed then return end
  if #kept == 0 then headers:remove("anthropic-beta") else headers:replace("anthropic-beta", table.concat(kept, ",")) end
end

local function sent_for(models, name)
  if models.exact[name] then return models.exact[name] end
  for _, glob in ipairs(models.globs) do
    if covers(glob[1], name) then return glob[2] end
  end
  return models.default or name
end

-- The query byte for byte, but for the client's keys in it.
local function sent_query(query, rule)
  if query == "" or not rule.strips then return query end
  local kept, gone = {}, false
  for pair in (query:sub(2) .. "&"):gmatch("([^&]*)&") do
    local name = unquoted((pair:match("^[^=]*"):gsub("+", " ")))
    if QUERY_SECRETS[(trimmed(name):lower():gsub("[-_]", ""))] then gone = true else kept[#kept + 1] = pair end
  end
  if not gone then return query end
  return #kept > 0 and "?" .. table.concat(kept, "&") or ""
end

-- Envoy puts the upstream's base path in front.
local function edit_path(headers, rule, request)
  local path = request.path
  if request.first and rule.models then
    request.sent = sent_for(rule.models, request.model)
    if request.sent ~= request.model then
      path = path:sub(1, request.first - 1) .. quoted(request.sent) .. path:sub(request.last)
    end
  end
  local query = sent_query(request.query, rule)
  if path ~= request.path or query ~= request.query then headers:replace(":path", path .. query) end
end

-- ---- the body ----

local function check_size(bytes)
  if bytes > LISTENER.body_limit then refuse(413, "the body is larger than " .. LISTENER.body_limit .. " bytes") end
end

-- Whether a body is a form with files, in which no model is looked for.
local function has_form(headers, request)
  if request.has_form == nil then
    local kind = headers:get("content-type")
    request.has_form = kind and kind ~= "application/json" and kind:lower():sub(1, 10) == "multipart/" or false
  end
  return request.has_form
end

-- Notes the request's body and its text, checked, unless there is none or it is a form with files. Gives the headers:
-- Envoy takes back those that were got before it waited for the body.
local function read_body(handle, headers, request)
  if request.body or request.has_no_body then return headers end
  -- For Envoy, a request that asks for a WebSocket has no end.
  local is_upgrade = headers:get("upgrade")
  if is_upgrade and (request.length or "0") ~= "0" then
    refuse(400, "a request for a WebSocket has no body here; send this one without Upgrade")
  end
  local body = not is_upgrade and not has_form(headers, request) and handle:body()
  local size = body and body:length() or 0
  headers = handle:headers()
  if size == 0 then
    request.has_no_body = true
    return headers
  end
  check_size(size)
  local encoding = headers:get("content-encoding")
  if encoding and trimmed(encoding):lower() ~= "identity" then
    refuse(400, "a compressed body cannot be read here; send it without content-encoding")
  end
  request.body, request.text = body, body:getBytes(0, size)
  request.body_model, request.model_start, request.model_end = json.scan(request.text)
  return headers
end

local function edit_body(rule, request)
  local text = request.text
  if rule.models and request.body_model then
    local sent = sent_for(rule.models, request.body_model)
    if sent ~= request.body_model then
      text = text:sub(1, request.model_start) .. write_sent(sent) .. text:sub(request.model_end + 1)
    end
    if not request.first then request.sent = sent end
  end
  if rule.beta then
    text = json.map_betas(text, function(names) return edited_betas(rule.beta, names) end)
  end
  if rule.body_remove[1] then text = json.remove(text, rule.body_remove) end
  for place = 1, #rule.body_set do text = json.set(text, rule.body_set[place][1], rule.body_set[place][2]) end
  if text ~= request.text then request.body:setBytes(text) end
end

local function asks_for_count(request)
  local path = request.path:gsub("/+$", "")
  return request.method:upper() == "POST" and path:sub(-22) == "/messages/count_tokens"
end

-- ---- hooks ----

-- For the access log, for the answer's way back, and last for the gate behind the filter: it lets a request pass by the
-- route of the rule that is noted, and by no other. A note of several fields would cost more than several notes.
local function note_done(handle, request, rule)
  local notes = handle:streamInfo():dynamicMetadata()
  if rule and request.model then
    if not rule.restores or request.method == "HEAD" then notes:set("mitm_gateway", "stays", true) end
    notes:set("mitm_gateway", "model", request.model)
    notes:set("mitm_gateway", "model_sent", request.sent or request.model)
  end
  notes:set("mitm_gateway", "rule", request.number)
end

-- The model, and whether it is known before the body of most requests is. Envoy has taken Transfer-Encoding out by now,
-- and HTTP/2 has none: without a length there may be a body, also of a GET. Few have one; it is read before a route is
-- chosen, or the model that it names would decide nothing. Gives the headers too, as `read_body` does.
local function learn_model(handle, headers, request)
  if request.model then return request.model, true, headers end
  if request.length == "0" or has_form(headers, request) then return nil, true, headers end
  if request.length or (request.method ~= "GET" and request.method ~= "HEAD") then return nil, false, headers end
  headers = read_body(handle, headers, request)
  return request.body_model, true, headers
end

-- Envoy gives a route's metadata once, and again only after it has waited for a body: whatever is known by then about the
-- path and the model is set before the first look, or the rule in the old metadata would not be the route's.
local function route_at_first(handle, headers, request)
  local model, knows_model
  if LISTENER.asks_model then model, knows_model, headers = learn_model(handle, headers, request) end
  local is_encoded = has(request.path, "%")
  if is_encoded then
    headers:replace(":path", normal_path(request.path) .. request.query)
    headers:replace(PATH, "normal")
  end
  if knows_model then headers:replace(MODEL, model and "=" .. as_value(model) or NO_MODEL) end
  if is_encoded or knows_model then handle:clearRouteCache() end
  return handle:metadata(), headers
end

-- The route behind one that asks for the body's model. Also the headers, as Envoy takes back those that it gave before.
local function route_by_body(handle, headers, request)
  headers = read_body(handle, headers, request)
  if request.has_no_body then refuse(400, "the model decides here, and the request has no body to name one") end
  local model = request.body_model
  headers:replace(MODEL, model and "=" .. as_value(model) or NO_MODEL)
  handle:clearRouteCache()
  return handle:metadata(), headers
end

local function find_rule(handle, headers, request)
  local route
  route, headers = route_at_first(handle, headers, request)
  local number = route:get("rule")
  if not number and route:get("asks") then
    route, headers = route_by_body(handle, headers, request)
    number = route:get("rule")
  end
  if has(request.path, "%") then headers:replace(":path", request.target) end
  request.number = number or 0
  return LISTENER.rules[request.number], headers
end

local function let_in(headers, request)
  if not FORWARDED[request.method] and UNSENT[request.method:upper()] then
    refuse(403, "TRACE is not forwarded: it would show the credential")
  end
  check_origin(headers)
  check_path(request.path)
  request.length = headers:get("content-length")
  check_size(tonumber(request.length or "0") or 0)
  check_client_key(headers, LISTENER.answers_head and request.method == "HEAD")
end

local function serve(handle, headers, request)
  let_in(headers, request)
  local rule
  rule, headers = find_rule(handle, headers, request)
  if not rule then return note_done(handle, request) end
  request.rule = rule
  local key = rule.client and moved_key(headers, rule)
  if rule.reads_body then
    headers = read_body(handle, headers, request)
    request.model = request.model or request.body_model
    if rule.counts_tokens and asks_for_count(request) then
      local tokens = request.text and json.estimated_tokens(request.text) or 1
      note_done(handle, request, rule)
      return handle:respond(
        { [":status"] = "200", ["content-type"] = "application/json" }, '{"input_tokens": ' .. tokens .. "}"
      )
    end
    if request.text then edit_body(rule, request) end
  end
  edit_path(headers, rule, request)
  if rule.strips then strip_websocket_key(headers) end
  if rule.beta then edit_beta_header(headers, rule.beta) end
  if key then headers:replace(KEY, rule.client.is_basic and handle:base64Escape(key) or key) end
  note_done(handle, request, rule)
end

local function request_of(headers)
  local target = headers:get(":path") or "*"
  local mark = target:find("?", 1, true)
  local path, query = target, ""
  if mark then path, query = target:sub(1, mark - 1), target:sub(mark) end
  local model, first, last = path_model(path)
  return { -- with what is found out later: a table that grows is made anew several times
    method = headers:get(":method"), target = target, path = path, query = query,
    model = model, first = first, last = last, sent = nil, rule = nil, number = nil, length = nil, has_form = nil,
    has_no_body = nil, body = nil, text = nil, body_model = nil, model_start = nil, model_end = nil,
  }
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local request = request_of(headers)
  local done, fault = pcall(serve, handle, headers, request)
  if done then return end
  if type(fault) ~= "table" then
    handle:logErr("mitm-gateway: " .. tostring(fault))
    fault = { status = 502, reason = "an internal fault; the log of Envoy says more" }
  end
  handle:streamInfo():dynamicMetadata():set("mitm_gateway", "refusal", fault.reason)
  answer(handle, fault, request.path, request.rule)
end

local KINDS = { ["application/json"] = "json", ["text/event-stream"] = "sse" }

-- Whether an answer is `json` or `sse`; nil where it cannot be read.
local function kind_of(headers)
  local status = headers:get(":status")
  if status ~= "200" and (status:sub(1, 1) ~= "2" or status == "204") then return nil end
  local encoding = headers:get("content-encoding")
  if encoding and encoding:lower() ~= "identity" then return nil end
  local given = headers:get("content-type") or ""
  if KINDS[given] then return KINDS[given] end
  given = given:match("^%s*([^;%s]*)"):lower()
  return KINDS[given] or (given:sub(-5) == "+json" and "json") or nil
end

-- A stream can fail after its good status: that is told like a refusal, as no other key of the log tells of an outcome.
local function note_told(handle, told)
  if not told then return end
  local notes = handle:streamInfo():dynamicMetadata()
  if told.error then notes:set("mitm_gateway", "refusal", "upstream: " .. told.error) end
  for _, name in ipairs({ "model", "input_tokens", "output_tokens", "cache_read_tokens" }) do
    if told[name] then notes:set("mitm_gateway", name, told[name]) end
  end
end

function envoy_on_response(handle)
  local noted = handle:streamInfo():dynamicMetadata():get("mitm_gateway")
  local asked = noted and not noted.stays and noted.model
  if not noted or not (asked or LISTENER.tokens) then return end
  local headers = handle:headers()
  local kind = kind_of(headers)
  if not kind then return end
  local restorer = asked and restore[kind](write_asked(asked))
  local reader = LISTENER.tokens and usage[kind](not noted.model)
  if restorer then headers:remove("content-length") end -- the name's length differs
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    local came = size > 0 and chunk:getBytes(0, size) or ""
    if reader then note_told(handle, reader:feed(came)) end
    if restorer then
      local text = size > 0 and restorer:feed(came) or restorer:flush()
      if text ~= came then chunk:setBytes(text) end
    end
  end
  if reader then note_told(handle, reader:finish()) end
end
