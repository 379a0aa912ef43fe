-- A request: the rule that takes it, and the edits of its head and body.
-- Envoy's routes choose the rule of a request; LISTENER describes the rules, in the order of the file.
-- Each call of a handle or of headers leaves the compiled code and takes as long as about a hundred bytes of JSON, so
-- every one here is needed; a note takes as long as six of the others.

local has, as_value = text.has, text.as_value
local refuse, check_size = admission.refuse, admission.check_size
local REASONS = CONSTANTS.reasons
-- Headers for Envoy's routes: whether the path is in normal form, the model, the client's key.
local PATH, MODEL, KEY = CONSTANTS.path_header, CONSTANTS.model_header, CONSTANTS.key_header
-- The header for the gate behind the filter.
local DONE = CONSTANTS.done_header
local NO_MODEL = "-"
local NOTES, LOGGED = CONSTANTS.notes, CONSTANTS.logged_names

-- Return the form of errors and counts for the API of a call.
local function form_of(call) return call.endpoint.form or LISTENER.form end

local function answer(request, refusal)
  local call = head.identify(request.method:upper(), text.normal_path(request.path))
  local rule = request.rule and request.rule.name
  local body, headers = head.refusal(form_of(call), refusal.status, refusal.reason, rule)
  request.handle:respond(headers, body)
end

-- ---- edits of the head ----

-- Return the client's key for a rule that moves it, and whether it is a token in Authorization.
local function moved_key(headers, rule, query)
  local key = admission.key_to_move(headers, query, rule.client.prefer)
  if not key then refuse(401, REASONS.no_key_to_move) end
  if rule.client.refuses_anthropic and key:sub(1, #CONSTANTS.anthropic_key) == CONSTANTS.anthropic_key then
    refuse(403, REASONS.foreign_key)
  end
  local is_token = false
  for _, token in ipairs(admission.header_keys(headers, "authorization")) do is_token = is_token or token == key end
  return key, is_token
end

local function replace(headers, name, before, after)
  if after == nil then headers:remove(name) elseif after ~= before then headers:replace(name, after) end
end

local function edit(headers, name, edited)
  local value = headers:get(name)
  if value then replace(headers, name, value, edited(value)) end
end

local function edit_beta_header(headers, beta)
  local value = headers:get("anthropic-beta")
  local names = head.beta_names(value or "")
  local kept, changed = head.edited_betas(beta, names)
  local has_empty = value and #text.split(value, ",") ~= #names
  if changed or has_empty then replace(headers, "anthropic-beta", value, #kept > 0 and table.concat(kept, ",") or nil) end
end

-- Put the upstream's model into the path or the query, and take keys out; Envoy adds the upstream's base path.
local function edit_path(request, rule)
  local path, query, place = request.path, request.query, request.query_place
  if (request.call.first or place) and rule.models then
    request.sent = model_map.sent_model(rule.models, request.model)
    if request.sent ~= request.model and place then
      query = query:sub(1, place[1] - 1) .. head.quoted_value(request.sent) .. query:sub(place[2] + 1)
    elseif request.sent ~= request.model then
      path = head.path_with(request.normal, request.call, request.sent)
    end
  end
  if rule.strips then query = keys.sent_query(query) end
  if rule.query then query = head.edited_query(query, rule.query) end
  if path ~= request.path or query ~= request.query then request.headers:replace(":path", path .. query) end
end

-- ---- the body ----

-- Return whether any coding of a Content-Encoding changes the body.
local function is_compressed(encoding)
  for _, coding in ipairs(text.split(encoding:lower(), ",")) do
    coding = text.trimmed(coding)
    if coding ~= "" and coding ~= "identity" then return true end
  end
  return false
end

-- Read and check the request's body, unless it is empty. If it is not JSON, it may be a form.
local function read_body(request)
  if request.content or request.has_no_body then return end
  -- For Envoy, a request for a WebSocket has no end.
  if request.fields.upgrade then refuse(426, REASONS.socket) end
  local handle = request.handle
  local body = handle:body()
  local size = body and body:length() or 0
  local headers = handle:headers() -- waiting for the body has invalidated the ones before
  request.headers, request.body, request.has_no_body = headers, body, size == 0
  if size == 0 then return end
  check_size(size)
  if is_compressed(headers:get("content-encoding") or "") then refuse(400, REASONS.compressed) end
  local content, content_type = body:getBytes(0, size), headers:get("content-type") or ""
  local endpoint = request.call.endpoint
  request.content = content
  request.is_json = not endpoint.takes_files and head.is_json(content_type, content)
  if endpoint.takes_files then
    request.places, request.names = {}, {}
  elseif request.is_json then
    request.places, request.names, request.may_have_betas = models.scan(content, endpoint)
  else
    request.places, request.names = forms.scan(content, content_type, endpoint)
  end
  request.body_model = request.names[1]
end

local function edit_body(request, rule, moves_token)
  local edited, names = request.content, request.names
  if rule.models and names[1] then
    edited = models.renamed(edited, request.places, rule.models)
    request.asked_for = #names > 1 and model_map.names_by_sent(names, rule.models) or nil
    request.sent = model_map.sent_model(rule.models, names[1])
  end
  if request.is_json then
    local drops_token = rule.strips and not moves_token and request.may_have_betas
      and has(request.content, CONSTANTS.token_betas)
    if rule.beta or rule.body_remove[1] or rule.body_set[1] or drops_token then
      edited = edits.apply(edited, rule, drops_token)
    end
  end
  if edited ~= request.content then request.body:setBytes(edited) end
end

-- ---- the rule ----

-- Return names by others, all as JSON strings: Envoy cuts a note at a NUL.
local function quoted(names)
  local written = {}
  for sent, asked in pairs(names) do written[escapes.quoted(sent)] = escapes.quoted(asked) end
  return written
end

-- Note the facts for the access log and the response, and name the rule last: the gate behind the filter lets a request pass
-- by the route of this rule only. A note of several fields takes longer than several notes.
local function finish(request, rule)
  local notes = request.handle:streamInfo():dynamicMetadata()
  local restores = rule and rule.restores and request.method ~= "HEAD"
  local api = restores and CONSTANTS.responses[request.call.endpoint.response]
  if api and request.call.endpoint.response ~= 1 then notes:set(NOTES, "api", request.call.endpoint.response) end
  if api and request.call.endpoint.is_about_earlier and not request.model then
    notes:set(NOTES, "earlier", request.number)
  end
  if api and request.asked_for then notes:set(NOTES, "asked_for", quoted(request.asked_for)) end
  if rule and request.model then
    local is_renamed = request.sent and request.sent ~= request.model
    if not (restores and is_renamed) then notes:set(NOTES, "stays", true) end
    local shown = logged.shown(request.model)
    notes:set(NOTES, "model", shown)
    notes:set(NOTES, "model_sent", is_renamed and logged.shown(request.sent) or shown)
    if shown ~= request.model then notes:set(NOTES, "asked", escapes.quoted(request.model)) end
  end
  request.headers:replace(DONE, tostring(request.number))
end

-- Return the model, and whether it is known without reading the body. Envoy has taken Transfer-Encoding out by now, and
-- HTTP/2 has none, so without a length even a GET may have a body. Few do; it is read before a route is chosen, as the
-- model in it decides. That of an upgrade is unknown, so that a route asks for it.
local function learn_model(request)
  if request.model then return request.model, true end
  local length, upgrade = request.fields.length, request.fields.upgrade
  if length == "0" and not upgrade then return nil, true end
  local is_body_unlikely = request.method == "GET" or request.method == "HEAD"
  if length or not is_body_unlikely or upgrade then return nil, false end
  read_body(request)
  return request.body_model, true
end

-- Return whether a path is not in the normal form that routes match.
local function is_in_other_form(request) return request.is_doubled or has(request.path, "%") end

local function tell_model(request, model)
  request.headers:replace(MODEL, model and "=" .. as_value(model) or NO_MODEL)
end

-- Return the metadata of the first route. Envoy gives it once, and again only after it has waited for a body: path and
-- model are set before, or the noted rule would not be the route's.
local function route_at_first(request)
  local model, knows_model
  if LISTENER.asks_model then model, knows_model = learn_model(request) end
  local is_other = is_in_other_form(request)
  if is_other then
    request.headers:replace(":path", request.normal .. request.query)
    request.headers:replace(PATH, "normal")
  end
  if knows_model then tell_model(request, model) end
  if is_other or knows_model then request.handle:clearRouteCache() end
  return request.handle:metadata()
end

-- Return the metadata of the route behind one that asks for the body's model.
local function route_by_body(request)
  read_body(request)
  if request.has_no_body then refuse(400, REASONS.no_body) end
  tell_model(request, request.body_model)
  request.handle:clearRouteCache()
  return request.handle:metadata()
end

local function covers_model(globs, name)
  return name and (text.any_covers(globs, name) or text.any_covers(globs, model_map.base_name(name)))
end

-- Refuse a body whose models may belong to different rules. Envoy chose the rule by the first; the others belong to it if
-- the conditions on models treat them alike, up to this rule.
local function check_other_models(request)
  for place = 2, #(request.names or {}) do
    for number, rule in ipairs(LISTENER.rules) do
      local globs = rule.match_model
      if globs and covers_model(globs, request.names[1]) ~= covers_model(globs, request.names[place]) then
        refuse(400, REASONS.different_rules)
      end
      if number == request.number then break end
    end
  end
end

local function find_rule(request)
  local route = route_at_first(request)
  local number = route:get("rule")
  if not number and route:get("asks") then number = route_by_body(request):get("rule") end
  request.number = number or 0
  if is_in_other_form(request) then
    request.headers:replace(":path", number and request.path .. request.query or request.target)
  end
  if LISTENER.asks_model and not request.model then check_other_models(request) end
  return LISTENER.rules[request.number]
end

-- ---- a request ----

local function answer_count(request)
  local form = form_of(request.call)
  local tokens = request.is_json and estimate.tokens(request.content, form) or 1
  local headers = { [":status"] = "200", ["content-type"] = "application/json" }
  request.handle:respond(headers, '{"' .. CONSTANTS.count_keys[form] .. '": ' .. tokens .. "}")
end

-- Note the API of the request, and the model in its path or query.
local function identify(request)
  request.normal = text.normal_path(request.path)
  local call = head.identify(request.method:upper(), request.normal)
  request.call = call
  if call.first then request.model = text.unquoted_text(request.normal:sub(call.first, call.last - 1)) end
  local names = call.endpoint.query
  if not names[1] or not has(request.query, "=") then return end
  local places = head.query_places(request.query, names)
  if #places > 1 then refuse(400, REASONS.several_models) end
  if places[1] and not call.first then
    request.query_place = places[1]
    request.model = head.query_text(request.query:sub(places[1][1], places[1][2]))
  end
end

local function serve(request)
  admission.check(request)
  if admission.answer_preflight(request) then return end
  admission.check_client_key(request, LISTENER.answers_head and request.method == "HEAD")
  identify(request)
  local rule = find_rule(request)
  if not rule then return finish(request) end
  request.rule = rule
  local key, moves_token
  if rule.client then key, moves_token = moved_key(request.headers, rule, request.query) end
  if rule.reads_body and (rule.reads_messages or not request.fields.upgrade) then
    read_body(request)
    request.model = request.model or request.body_model
    if rule.counts_tokens and request.call.endpoint.counts_tokens and request.method:upper() == "POST" then
      finish(request, rule)
      return answer_count(request)
    end
    if request.content then edit_body(request, rule, moves_token) end
  end
  edit_path(request, rule)
  local headers = request.headers
  if rule.strips then edit(headers, CONSTANTS.protocol_header, keys.without_websocket_key) end
  if rule.strips and not moves_token then edit(headers, "anthropic-beta", head.without_token_betas) end
  if rule.beta then edit_beta_header(headers, rule.beta) end
  if key then headers:replace(KEY, key) end
  finish(request, rule)
end

-- Return the headers that more than one step reads, or that every request is asked for. To walk over all headers takes
-- as long for each of them as two of these.
local function fields_of(headers)
  return {
    origin = headers:get("origin"), site = headers:get("sec-fetch-site"), length = headers:get("content-length"),
    upgrade = headers:get("upgrade"),
  }
end

local function request_of(handle)
  local headers = handle:headers()
  local target = headers:get(":path") or "*"
  local mark = target:find("?", 1, true)
  local path, query = target, ""
  if mark then path, query = target:sub(1, mark - 1), target:sub(mark) end
  local is_doubled = text.begins(path, CONSTANTS.doubled_path)
  if is_doubled then path = path:sub(2) end
  return { -- with the fields that later steps set: a table that grows is copied several times
    method = headers:get(":method"), target = target, path = path, query = query, fields = fields_of(headers),
    is_doubled = is_doubled, handle = handle, headers = headers,
    normal = nil, call = nil, query_place = nil, model = nil, sent = nil, rule = nil, number = nil, has_no_body = nil,
    body = nil, content = nil, is_json = nil, places = nil, names = nil, body_model = nil, asked_for = nil,
  }
end

-- Note the path, and the session and agent that the client names, for the access log.
local function note_names(request)
  local notes, headers = request.handle:streamInfo():dynamicMetadata(), request.headers
  notes:set(NOTES, "path", logged.masked(request.path))
  local session, agent = logged.name(headers, LOGGED.session), logged.name(headers, LOGGED.agent)
  if session then notes:set(NOTES, "session", session) end
  if agent then notes:set(NOTES, "agent", agent) end
end

function envoy_on_request(handle)
  local request = request_of(handle)
  note_names(request)
  local done, fault = pcall(serve, request)
  if done then return end
  if type(fault) ~= "table" then
    handle:logErr("mitm-gateway: " .. tostring(fault))
    fault = { status = 502, reason = REASONS.fault }
  end
  local is_broken = fault.reason == REASONS.not_json and request.is_json
  if is_broken and not json.is_utf8(request.content) then fault.reason = REASONS.not_utf8 end
  handle:streamInfo():dynamicMetadata():set(NOTES, "refusal", fault.reason)
  answer(request, fault)
end
