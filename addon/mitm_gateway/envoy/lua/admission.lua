-- Admission: the checks of a request before a rule is looked up, and the client's keys for this gateway.

local admission = {}

local REASONS = CONSTANTS.reasons
-- The file of client keys is read again at most this often: a change is in force within two seconds.
local CLIENTS_TTL_S = 1

-- The methods of most requests, looked up before a closer look.
local FORWARDED = { POST = true, GET = true, HEAD = true }
local UNSENT = { TRACE = true, TRACK = true }

local OWN_SITES = {}
for _, site in ipairs(CONSTANTS.own_sites) do OWN_SITES[site] = true end

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

-- Report whether a value is a client's key, in time that depends neither on which nor on how many bytes agree.
local function knows_key(value)
  local found = false
  for _, key in ipairs(client_keys()) do
    local is_equal = head.equals(key, value)
    found = found or is_equal
  end
  return found
end

-- Return each value of a header; joined they would match no key, or hide another vendor's.
function admission.values(headers, name)
  local all = {}
  for place = 0, headers:getNumValues(name) - 1 do all[place + 1] = headers:getAtIndex(name, place) end
  return all
end

-- Ask for a client's key where keys are configured, and take it out of the request.
function admission.check_client_key(headers, is_probe)
  if not LISTENER.clients then return end
  local known = false
  for _, name in ipairs(CONSTANTS.key_headers) do
    local others, all = {}, admission.values(headers, name)
    for _, value in ipairs(all) do
      if not knows_key(head.bare_key(value)) then others[#others + 1] = value end
    end
    if #others < #all then
      known = true
      headers:remove(name)
      for _, value in ipairs(others) do headers:add(name, value) end
    end
  end
  if not known and not is_probe then refuse(401, REASONS.client_key) end
end

function admission.check_size(bytes)
  if bytes > LISTENER.body_limit then refuse(413, LISTENER.too_large) end
end

-- Answer the preflight request of a listed page, which needs no key. Return whether it was one.
function admission.answer_preflight(handle, headers, request)
  local origin = request.fields.origin
  if not origin or request.method:upper() ~= "OPTIONS" then return false end
  local answer = { [":status"] = "204", ["access-control-allow-origin"] = text.trimmed(origin) }
  for name, value in pairs(CONSTANTS.preflight) do answer[name] = value end
  answer["access-control-allow-headers"] = headers:get("access-control-request-headers")
  if (headers:get("access-control-request-private-network") or ""):lower() == "true" then
    answer["access-control-allow-private-network"] = "true"
  end
  handle:respond(answer, "")
  return true
end

-- Refuse a request that may not use the gateway.
function admission.check(request)
  if not FORWARDED[request.method] and UNSENT[request.method:upper()] then refuse(403, REASONS.trace) end
  check_origin(request.fields)
  check_path(request.method, request.path)
  admission.check_size(tonumber(request.fields.length or "0") or 0)
end
