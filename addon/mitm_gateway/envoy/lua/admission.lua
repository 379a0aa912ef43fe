-- Admission: the checks of a request before a rule is looked up, and the client's keys for this gateway.

local admission = {}

local REASONS = CONSTANTS.reasons
-- The file of client keys is read again at most this often: a change is in force within two seconds.
local CLIENTS_TTL_S = 1

-- The methods of most requests, looked up before a closer look.
local FORWARDED = { POST = true, GET = true, HEAD = true }
local UNSENT = { TRACE = true, TRACK = true }

local OWN_SITES = text.set_of(CONSTANTS.own_sites)

-- Refuse the request.
function admission.refuse(status, reason) error({ status = status, reason = reason }, 0) end
local refuse = admission.refuse

local function is_listed(origin)
  local place = text.without_final(text.trimmed(origin):lower(), "/")
  local scheme, host = place:match("^([^:]+://)([^/%s*,]+)$")
  return host and (LISTENER.origins[place] or LISTENER.origins[scheme .. "*"])
end

local function check_origin(fields)
  local origin, site = fields.origin, fields.site
  if origin and not is_listed(origin) then refuse(403, REASONS.web_page) end
  if not origin and site and not OWN_SITES[text.trimmed(site):lower()] then refuse(403, REASONS.cross_site) end
end

local function check_path(method, path)
  if #path > CONSTANTS.max_path_bytes then refuse(400, REASONS.long_path) end
  if head.has_odd_segments(path) then refuse(400, REASONS.odd_path) end
  if head.has_two_readings(method:upper(), text.normal_path(path)) then refuse(400, REASONS.two_readings) end
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
        line = text.trimmed(line)
        if line ~= "" and line:sub(1, 1) ~= "#" then keys[#keys + 1] = line end
      end
      file:close()
      clients.keys = keys
    end
  end
  return clients.keys
end

-- Return whether a value is a client's key, in time that depends neither on which nor on how many bytes agree.
local function knows_key(value)
  local found = false
  for _, key in ipairs(client_keys()) do
    local is_equal = keys.equals(key, value)
    found = found or is_equal
  end
  return found
end

local PROTOCOL = CONSTANTS.protocol_header

-- Return the names of the headers in which a client has sent keys, in order.
local function key_headers(headers)
  local names, seen = {}, {}
  for name in pairs(headers) do
    if not seen[name] and (name == PROTOCOL or keys.is_key_name(name)) then names[#names + 1] = name end
    seen[name] = true
  end
  return names
end

-- Return each value of a header; joined they would match no key, or hide another vendor's. Envoy joins those of
-- Authorization.
local function values(headers, name)
  local all = {}
  for place = 0, headers:getNumValues(name) - 1 do
    local value = headers:getAtIndex(name, place)
    for _, part in ipairs(name == "authorization" and text.split(value, ",") or { value }) do
      all[#all + 1] = text.trimmed(part)
    end
  end
  return all
end

-- Return the keys in a header, without their auth schemes.
function admission.header_keys(headers, name)
  local found = {}
  for place, value in ipairs(values(headers, name)) do
    found[place] = keys.bare_key(value)
    -- Behind another scheme, such as a signature's, its parameters follow.
    if name == "authorization" and found[place]:find(" ", 1, true) then break end
  end
  return found
end

-- Return the client's own key, never a placeholder: from the usual slots first, then from any other for API keys.
function admission.key_to_move(headers, query, prefer)
  local first, second = CONSTANTS.usual_slots[1], CONSTANTS.usual_slots[2]
  if prefer == second then first, second = second, first end
  local key = keys.real_key(admission.header_keys(headers, first))
    or keys.real_key(admission.header_keys(headers, second))
  if key then return key end
  for _, name in ipairs(key_headers(headers)) do
    key = key or keys.is_api_key_name(name) and keys.real_key(admission.header_keys(headers, name))
  end
  return key or keys.real_key(keys.query_keys(query, keys.is_api_key_parameter))
    or keys.real_key(keys.websocket_keys(headers:get(PROTOCOL) or ""))
end

local function any_known(found)
  for _, key in ipairs(found) do
    if knows_key(key) then return true end
  end
  return false
end

-- Take the keys of this gateway out of a header; return whether it had one.
local function take_from_header(headers, name)
  if name == PROTOCOL then
    local value = headers:get(name)
    if not any_known(keys.websocket_keys(value)) then return false end
    local rest = keys.without_websocket_key(value)
    if rest then headers:replace(name, rest) else headers:remove(name) end
    return true
  end
  local all, others = values(headers, name), {}
  for _, value in ipairs(all) do
    if not knows_key(keys.bare_key(value)) then others[#others + 1] = value end
  end
  if #others == #all then return false end
  headers:remove(name)
  for _, value in ipairs(others) do headers:add(name, value) end
  return true
end

local function is_own_parameter(pair)
  return keys.is_key_parameter(pair) and any_known(keys.parameter_values(pair))
end

local function count_keys(headers, names, query)
  local count = #keys.query_keys(query, keys.is_key_parameter)
  for _, name in ipairs(names) do count = count + #values(headers, name) end
  return count
end

-- Require a client's key if keys are configured, and remove it from the request, whatever its slot.
function admission.check_client_key(request, is_probe)
  if not LISTENER.clients then return end
  local headers = request.headers
  local is_known, names = false, key_headers(headers)
  if count_keys(headers, names, request.query) <= CONSTANTS.max_keys then
    for _, name in ipairs(names) do is_known = take_from_header(headers, name) or is_known end
    local query = keys.query_without(request.query, is_own_parameter)
    if query ~= request.query then
      is_known, request.query, request.target = true, query, request.path .. query
      headers:replace(":path", request.target)
    end
  end
  if not is_known and not is_probe then refuse(401, REASONS.client_key) end
end

function admission.check_size(bytes)
  if bytes > LISTENER.body_limit then refuse(413, LISTENER.too_large) end
end

-- Answer the preflight request of a listed page, which needs no key. Return whether it was one.
function admission.answer_preflight(request)
  local origin, headers = request.fields.origin, request.headers
  if not origin or request.method:upper() ~= "OPTIONS" then return false end
  local answer = { [":status"] = "204", ["access-control-allow-origin"] = text.trimmed(origin) }
  for name, value in pairs(CONSTANTS.preflight) do answer[name] = value end
  if request.handle:metadata():get("is_page") then answer.vary = nil end -- which the route adds
  answer["access-control-allow-headers"] = headers:get("access-control-request-headers")
  if (headers:get("access-control-request-private-network") or ""):lower() == "true" then
    answer["access-control-allow-private-network"] = "true"
  end
  request.handle:respond(answer, "")
  return true
end

-- Refuse a request that may not use the gateway.
function admission.check(request)
  if not FORWARDED[request.method] and UNSENT[request.method:upper()] then refuse(403, REASONS.trace) end
  check_origin(request.fields)
  check_path(request.method, request.path)
  admission.check_size(tonumber(request.fields.length or "0") or 0)
end
