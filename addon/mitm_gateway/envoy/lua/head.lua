-- Decisions about a request head, made from texts alone: path, query, betas, the form of an error.

local head = {}

local has, trimmed = text.has, text.trimmed

-- ---- the path ----

local function is_odd(segment)
  local stop = segment:find(";", 1, true)
  -- "..;x" is a dot segment to servers that take ";x" for a path parameter.
  local name = stop and segment:sub(1, stop - 1) or segment
  return (name == "" or name == "." or name == "..") and stop ~= 1
end

-- Return whether a path has dot or empty segments, also percent-encoded once or twice. A final slash opens no empty
-- segment, and a backslash counts as a slash.
function head.has_odd_segments(path)
  if not has(path, "//") and not has(path, "/.") and not has(path, "%") and not has(path, "\\") then return false end
  for _ = 1, 3 do
    local segments = text.split((path:gsub("\\", "/")), "/")
    if segments[#segments] == "" then segments[#segments] = nil end
    for place = 2, #segments do
      if is_odd(segments[place]) then return true end
    end
    if not has(path, "%") then return false end
    path = text.unquoted(path)
  end
  return false
end

-- Return the places of an endpoint's model in a path: of its first byte, and behind its last. Without a model the first
-- is true, in a path of another endpoint nil.
local function places_in(endpoint, path)
  if not endpoint.pattern then return path:sub(-#endpoint.start) == endpoint.start or nil end
  -- The first place only: to try them all would take quadratic time on a hostile path.
  local at = path:find(endpoint.start, 1, true)
  local first, last = nil, nil
  if at then first, last = path:match(endpoint.pattern, at) end
  return first and (last and first or true), last
end

local OTHER = CONSTANTS.other

local function identify(method, path)
  local lowered = text.without_final(path:lower(), "/")
  for place = 1, #CONSTANTS.endpoints do
    local endpoint = CONSTANTS.endpoints[place]
    if not endpoint.method or endpoint.method == method then
      local first, last = places_in(endpoint, lowered)
      if first then return { endpoint = endpoint, first = last and first, last = last } end
    end
  end
  return { endpoint = OTHER }
end

local BLANK, NOT_BLANK = "^[\1-\32\127]", "[^\1-\32\127]"

local function without_blanks(segment)
  local first, last = segment:find(NOT_BLANK) or #segment + 1, #segment
  while last >= first and segment:find(BLANK, last) do last = last - 1 end
  return segment:sub(first, last)
end

-- Return a path as the most lenient servers read it: decoded again, without parameters, blanks and a tail.
function head.lenient_path(path)
  for _ = 1, CONSTANTS.max_decodings do path = text.unquoted(path) end
  path = path:gsub("\\", "/"):match("^[^?#%z]*"):gsub(";[^/]*", ""):gsub("//+", "/")
  return (path:gsub("[^/]+", without_blanks))
end

-- Return whether lenient servers may read another model, or other places of models, in a path than its API has.
function head.has_two_readings(method, path)
  if not path:find("[%%;\\#]") then return false end
  local call, lenient = head.identify(method, path), head.lenient_path(path)
  local other = head.identify(method, lenient)
  local model = call.first and text.unquoted(path:sub(call.first, call.last - 1))
  local read = other.first and lenient:sub(other.first, other.last - 1)
  return call.endpoint.tree ~= other.endpoint.tree or model ~= read
    or table.concat(call.endpoint.query, " ") ~= table.concat(other.endpoint.query, " ")
end

local MAX_KEPT, MAX_KEPT_BYTES = 1000, 256
local kept, kept_count = {}, 0

-- Return the call that method and path (in normal form) make: its endpoint, and the place of the model in the path.
function head.identify(method, path)
  if #path > MAX_KEPT_BYTES then return identify(method, path) end
  local line = method .. " " .. path
  if not kept[line] then
    if kept_count == MAX_KEPT then kept, kept_count = {}, 0 end
    kept[line], kept_count = identify(method, path), kept_count + 1
  end
  return kept[line]
end

local function includes(list, wanted)
  for place = 1, #list do
    if list[place] == wanted then return true end
  end
  return false
end

-- Return the places of the values of parameters with these names in a query, each as its first and last byte.
function head.query_places(query, names)
  local places, at = {}, 2
  for _, pair in ipairs(text.split(query:sub(2), "&")) do
    local mark = pair:find("=", 1, true)
    if mark and includes(names, head.query_text(pair:sub(1, mark - 1))) then
      places[#places + 1] = { at + mark, at + #pair - 1 }
    end
    at = at + #pair + 1
  end
  return places
end

-- Decode a name or a value of a query.
function head.query_text(encoded) return text.unquoted_text((encoded:gsub("%+", " "))) end

-- Percent-encode a model as a value of a query.
function head.quoted_value(model) return (text.quoted(model):gsub("%%2F", "/")) end

-- Return whether a body of this Content-Type is JSON: other types are, where they look like it.
function head.is_json(content_type, body)
  if not text.begins_with_any(text.trimmed(content_type):lower(), CONSTANTS.other_types) then return true end
  if text.begins_with_any(body, CONSTANTS.utf16_and_32) then return true end
  local at = body:sub(1, 3) == "\239\187\191" and 4 or 1
  return body:find("^[ \t-\r]*[{%[]", at) ~= nil
end

-- Return the path with its model replaced by another.
function head.path_with(path, call, model)
  local before, old, after = path:sub(1, call.first - 1), path:sub(call.first, call.last - 1), path:sub(call.last)
  -- A client that leaves slashes as they are finds them so upstream; else they stay inside the segment.
  local encoded = text.quoted(model)
  if has(old, "/") then encoded = encoded:gsub("%%2F", "/") end
  return before .. encoded .. after
end

-- ---- errors ----

-- Return body and headers of a refusal in the error form of an API.
function head.refusal(form, status, reason, rule)
  local error_ = CONSTANTS.errors[form][status]
  if rule then reason = reason .. ' (rule "' .. rule .. '")' end
  local headers = { [":status"] = tostring(status) }
  for name, value in pairs(error_.headers) do headers[name] = value end
  return error_.before .. escapes.quoted(reason):sub(2, -2) .. error_.after, headers
end

-- ---- query, betas ----

-- Return a query with its question mark after a rule's removals and settings; every other parameter stays byte for byte.
function head.edited_query(query, edits)
  local kept, left = {}, {}
  for _, setting in ipairs(edits.set) do left[setting[1]] = setting[2] end
  for _, pair in ipairs(#query > 1 and text.split(query:sub(2), "&") or {}) do
    local mark = pair:find("=", 1, true)
    local name = head.query_text(mark and pair:sub(1, mark - 1) or pair)
    if left[name] then -- in the position of the first of several
      kept[#kept + 1], left[name] = left[name], false
    elseif left[name] == nil and not text.any_covers(edits.remove, name) then
      kept[#kept + 1] = pair
    end
  end
  for _, setting in ipairs(edits.set) do
    if left[setting[1]] then kept[#kept + 1] = setting[2] end
  end
  return kept[1] and "?" .. table.concat(kept, "&") or ""
end

-- Return the beta names in a header's value.
function head.beta_names(value)
  local names = {}
  for _, name in ipairs(text.split(value, ",")) do
    name = trimmed(name)
    if name ~= "" then names[#names + 1] = name end
  end
  return names
end

-- Return whether a beta name belongs to an OAuth token.
function head.is_token_beta(name)
  return text.begins(trimmed(name):lower(), CONSTANTS.token_betas)
end

-- Return an anthropic-beta value without the names that belong to a stripped token; nil where no name is left.
function head.without_token_betas(value)
  if not has(value:lower(), CONSTANTS.token_betas) then return value end
  local betas, kept, has_name = text.split(value, ","), {}, false
  for _, beta in ipairs(betas) do
    if not head.is_token_beta(beta) then
      kept[#kept + 1] = beta
      has_name = has_name or trimmed(beta) ~= ""
    end
  end
  if #kept == #betas then return value end
  return has_name and trimmed(table.concat(kept, ",")) or nil
end

-- Return the beta names to send for the client's, and whether they differ.
function head.edited_betas(beta, names)
  local kept, seen = {}, {}
  local function add(name)
    if seen[name] then return end
    seen[name] = true
    kept[#kept + 1] = name
  end
  for _, name in ipairs(names) do
    local stays = trimmed(name) ~= "" and (not beta.keep or text.any_covers(beta.keep, name))
    if stays and not text.any_covers(beta.drop, name) then add(beta.rename[name] or name) end
  end
  for _, name in ipairs(beta.add) do add(name) end
  local changed = #kept ~= #names
  for place, name in ipairs(names) do changed = changed or kept[place] ~= name end
  return kept, changed
end
