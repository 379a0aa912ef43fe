-- Model names in a form: in fields that are named like the members of the API's JSON, and in JSON inside a field.

local forms = {}

local REASONS, refuse = CONSTANTS.reasons, json.refuse
local MAX_PART_HEADERS, MAX_FIELDS = CONSTANTS.max_part_headers, CONSTANTS.max_fields
local MAX_FIELD_NAME, MAX_NAME_BYTES = CONSTANTS.max_field_name, CONSTANTS.max_name_bytes

-- Return the parameters of a header's value from its first `;` on, with their names in lower case.
local function parameters_of(line)
  local parameters, at = {}, 1
  while true do
    local _, finish, key = line:find(";[ \t]*([^=; \t]+)[ \t]*=[ \t]*", at)
    if not finish then return parameters end
    local _, close, value = line:find('^"([^"]*)"', finish + 1)
    if not close then _, close, value = line:find('^([^";]*)', finish + 1) end
    parameters[key:lower()] = value:match("^[ \t]*(.-)[ \t]*$")
    at = close + 1
  end
end

-- Return the name of a field; nil for a file.
local function field_name(headers)
  for line in (headers .. "\r\n"):gmatch("(.-)\r\n") do
    local start = line:lower():match("^content%-disposition:[ \t]*form%-data[ \t]*();")
    local given = start and parameters_of(line:sub(start)) or {}
    if given.name and not given.filename and not given["filename*"] then return given.name end
  end
end

-- Return the places of the line breaks before the boundaries of a form; a place counts the bytes before it.
local function parts_of(form, mark)
  local parts, at = {}, form:find("\r\n" .. mark, 1, true)
  if form:sub(1, #mark) == mark then parts[1] = -2 end
  local count = 0
  while at do
    count = count + 1
    if count > MAX_FIELDS then refuse(REASONS.too_many_fields) end
    local after = at + 2 + #mark
    if form:find("^%-%-", after) or form:find("^[ \t]*\r\n", after) then parts[#parts + 1] = at - 1 end
    at = form:find("\r\n" .. mark, after, true)
  end
  return parts
end

local function boundary_in(content_type)
  local start = content_type:lower():find("[; \t]boundary=")
  if not start then return nil end
  local value = content_type:sub(start + #" boundary=")
  return value:match('^"([^"]+)"') or value:match('^[^%s";,]+')
end

local function as_it_is(name) return name end

-- Return the content of a field of this name in an API: a model, or JSON with models. `session[model]` is the key "model" of
-- "session", and `models[]` an element of "models".
local function node_of(name, api)
  if #name > MAX_FIELD_NAME then return nil end
  local node, is_step = CONSTANTS.trees[api.tree], false
  for step in name:lower():gsub("%[%]", "[0]"):gmatch("[^%[%]]+") do
    is_step = true
    if step:find("^%d+$") then node = node.each else node = node.below and node.below[step] end
    if not node then return nil end
  end
  return is_step and node or nil
end

-- Return whether the whole text of a field is a model; several fields may have the same name.
local function is_text(node) return node.is_model or node.each and node.each.is_model end

-- Add the models in a field's JSON, which is read as the member of an object.
local function add_json(places, value, start, key, api)
  if key:find("[", 1, true) then return end
  local lead = '{"' .. key .. '":'
  for _, place in ipairs((models.scan(lead .. value .. "}", api))) do
    local shift = start - #lead
    place.start, place.finish = place.start + shift, place.finish + shift
    places[#places + 1] = place
  end
end

local function add_parts(places, form, boundary, api)
  local mark, start, json_left = "--" .. boundary, 0, CONSTANTS.max_field_json
  for _, finish in ipairs(parts_of(form, mark)) do
    local stop = start > 0 and form:sub(start + 1, math.min(finish, start + MAX_PART_HEADERS)):find("\r\n\r\n", 1, true)
    local name = stop and field_name(form:sub(start + 1, start + stop - 1))
    local node = name and node_of(name, api)
    if node then
      local value_start = start + stop + 3
      local value = form:sub(value_start + 1, finish)
      if not node.is_model and value:find("^[ \t\r\n]*[{%[]") then
        json_left = json_left - #value
        if json_left < 0 then refuse(REASONS.large_fields) end
        add_json(places, value, value_start, name:lower(), api)
      elseif is_text(node) then
        if #value > MAX_NAME_BYTES then refuse(REASONS.long_model) end
        if not json.is_utf8(value) then refuse(REASONS.not_utf8) end
        places[#places + 1] = { start = value_start, finish = finish, name = value, prefix = "", written = as_it_is }
      end
    end
    start = finish + 2 + #mark
  end
  -- Some servers read a last part without an end.
  local is_closed = start > 0 and (form:find("^%-%-", start + 1) or form:find("^[ \t\r\n]*$", start + 1))
  if not is_closed and form:find(mark, 1, true) then refuse(REASONS.open_form) end
end

local function add_pairs(places, form, api)
  local at, marks = 0, select(2, form:gsub("&", ""))
  if marks >= MAX_FIELDS then refuse(REASONS.too_many_fields) end
  for _, pair in ipairs(text.split(form, "&")) do
    local mark = pair:find("=", 1, true)
    local node = mark and mark - 1 <= 3 * MAX_FIELD_NAME and node_of(head.query_text(pair:sub(1, mark - 1)), api)
    if node and is_text(node) then
      if #pair - mark > 3 * MAX_NAME_BYTES then refuse(REASONS.long_model) end
      if not json.is_utf8(pair) then refuse(REASONS.not_utf8) end
      local name = head.query_text(pair:sub(mark + 1))
      places[#places + 1] = { start = at + mark, finish = at + #pair, name = name, prefix = "", written = head.quoted_value }
    end
    at = at + #pair + 1
  end
end

-- Return the models of a form, in the manner of `models.scan`.
function forms.scan(form, content_type, api)
  local places, kind = {}, text.trimmed(content_type):lower()
  local boundary = kind:find("multipart/form-data", 1, true) == 1 and boundary_in(content_type)
  if boundary then
    add_parts(places, form, boundary, api)
  elseif kind:find("application/x-www-form-urlencoded", 1, true) == 1 then
    add_pairs(places, form, api)
  end
  if #places > CONSTANTS.max_names then refuse(REASONS.too_many_models) end
  return places, models.distinct(places)
end
