-- Model names in a JSON body: their places, along the paths of the API that the request asks.

local models = {}

local REASONS = CONSTANTS.reasons
local QUOTE, BACKSLASH, LETTER_A, OPEN_OBJECT, OPEN_ARRAY = 34, 92, 97, 123, 91
local value_end, refuse, captures, split, trimmed = json.value_end, json.refuse, text.captures, text.split, text.trimmed

-- The body that is searched, the places found in it, and how many members and elements the search may still visit.
local text, tree, found, seen, steps_left = "", nil, {}, {}, 0
local own -- the name of the model that the request is for
local has_resource_names, may_have_betas = false, false
-- The place of the next key "model" in its usual spelling; 0 if it may have another one, nil before it is needed.
local MODEL_KEY, next_model = '"model"', nil

-- Return the size of the resource name up to a model's own: of the path that ends in `models/`.
local function resource_size(name)
  local at = 1
  while true do
    local slash = name:find("/", at, true)
    if not slash or slash == at then return 0 end
    if CONSTANTS.resources[name:sub(at, slash - 1)] then return slash end
    at = slash + 1
  end
end

local function add(p, at)
  local finish = json.string_end(p, at + 1)
  local name, prefix = escapes.decoded(text:sub(at + 2, finish - 1)), ""
  if has_resource_names then
    local size = resource_size(name)
    name, prefix = name:sub(size + 1), name:sub(1, size)
  end
  found[#found + 1] = { start = at, finish = finish, name = name, prefix = prefix }
  return finish
end

local function count()
  if steps_left == 0 then refuse(REASONS.too_many) end
  steps_left = steps_left - 1
end

local function repeated(key) refuse(key == "model" and REASONS.second_model or REASONS.repeated_key) end

-- Return whether every key "model" has its usual spelling.
local function is_usual()
  if not next_model then next_model = text:find("\\u006", 1, true) and 0 or 1 end
  return next_model > 0
end

-- Return whether the text between these places has no key "model".
local function has_no_model(at, finish)
  if next_model <= at then next_model = text:find(MODEL_KEY, at + 1, true) or #text + 1 end
  return next_model > finish
end

-- Find the models in the value at `at`; `node` tells which texts in it are models. Return its end.
local function search(p, at, node)
  local mark = p[at]
  if node.is_gated and is_usual() then
    local finish = value_end(p, at)
    if has_no_model(at, finish) then return finish end
  end
  if mark == QUOTE and node.is_model then return add(p, at) end
  if mark == OPEN_OBJECT and node.below and not node.each then
    local before, known = #found, {}
    local closing = json.each(text, p, at, function(key, value)
      count()
      local below = node.below[key]
      if not below then return value_end(p, value) end
      if known[key] then repeated(key) end
      known[key] = true
      return search(p, value, below)
    end)
    if node.is_model and #found == before then refuse(REASONS.model_not_a_string) end
    return closing + 1
  end
  if mark == OPEN_ARRAY and node.each then
    return json.each(text, p, at, function(_, value)
      count()
      return search(p, value, node.each)
    end) + 1
  end
  local finish = value_end(p, at)
  if node.is_model then
    if text:sub(at + 1, finish) ~= "null" then refuse(REASONS.model_not_a_string) end
  elseif node.is_main or mark == OPEN_OBJECT or mark == OPEN_ARRAY then
    refuse(REASONS.no_models)
  end
  return finish
end

local function visit(p, key_at, value)
  local first = p[key_at + 1]
  may_have_betas = may_have_betas or first == LETTER_A or first == BACKSLASH
  if first ~= BACKSLASH and not tree.first_bytes[first] then return value_end(p, value) end
  local key = escapes.decoded(text:sub(key_at + 2, json.string_end(p, key_at + 1) - 1))
  local node = tree.below[key]
  if not node then return value_end(p, value) end
  if seen[key] then repeated(key) end
  seen[key] = true
  -- A model without a value counts as absent; anything else in its place does not.
  if text:sub(value + 1, value + 4) == "null" then return value + 4 end
  local before = #found
  local finish = search(p, value, node)
  if key == "model" and found[before + 1] then own = found[before + 1].name end
  return finish
end

-- Return the distinct names of places, in order, behind a first one if it is given.
local function distinct(places, first)
  local names, known = { first }, {}
  if first then known[first] = true end
  for place = 1, #places do
    local name = places[place].name
    if not known[name] then known[name], names[#names + 1] = true, name end
  end
  return names
end

local function checked(names)
  if #names > CONSTANTS.max_names then refuse(REASONS.too_many_models) end
  for _, name in ipairs(names) do
    if #name > CONSTANTS.max_name_bytes then refuse(REASONS.long_model) end
  end
  return names
end

-- Check that a body is a JSON object. Return the places of the models that an API has in it (`start`, `finish`, `name`
-- and `prefix`, the resource name up to it), the distinct names in order, that of the top-level `model` first, and whether
-- a key at the top level may be "anthropic_beta".
function models.scan(body, api)
  text, tree, has_resource_names = body, CONSTANTS.trees[api.tree], api.has_resource_names
  found, seen, steps_left = {}, {}, CONSTANTS.max_steps
  own, next_model, may_have_betas = nil, nil, false
  json.scan(body, visit)
  text = ""
  return found, checked(distinct(found, own)), may_have_betas
end

-- ---- forms ----

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

-- Return whether a model is the text of a field: of one, or of each of several with this name.
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
  for _, pair in ipairs(split(form, "&")) do
    local mark = pair:find("=", 1, true)
    local node = mark and mark - 1 <= 3 * MAX_FIELD_NAME and node_of(head.query_text(pair:sub(1, mark - 1)), api)
    if node and is_text(node) then
      if #pair - mark > 3 * MAX_NAME_BYTES then refuse(REASONS.long_model) end
      local name = head.query_text(pair:sub(mark + 1))
      places[#places + 1] = { start = at + mark, finish = at + #pair, name = name, prefix = "", written = head.quoted_value }
    end
    at = at + #pair + 1
  end
end

-- Return the models of a form, in the manner of `scan`.
function models.scan_form(form, content_type, api)
  local places, kind = {}, trimmed(content_type):lower()
  local boundary = kind:find("multipart/form-data", 1, true) == 1 and boundary_in(content_type)
  if boundary then
    add_parts(places, form, boundary, api)
  elseif kind:find("application/x-www-form-urlencoded", 1, true) == 1 then
    add_pairs(places, form, api)
  end
  if #places > CONSTANTS.max_names then refuse(REASONS.too_many_models) end
  return places, checked(distinct(places))
end

local write = escapes.new_writer()

-- Return the body with each model as a rule's map names it.
function models.renamed(body, places, map)
  local pieces, done = {}, 0
  for _, place in ipairs(places) do
    local sent = head.sent_model(map, place.name)
    if sent ~= place.name then
      pieces[#pieces + 1] = body:sub(done + 1, place.start)
      pieces[#pieces + 1] = (place.written or write)(place.prefix .. sent)
      done = place.finish
    end
  end
  if done == 0 then return body end
  pieces[#pieces + 1] = body:sub(done + 1)
  return table.concat(pieces)
end

-- Return the client's name for each that is sent instead; the first of several counts.
function models.names_by_sent(names, map)
  local asked_for = {}
  for _, name in ipairs(names) do
    local sent = head.sent_model(map, name)
    asked_for[sent] = asked_for[sent] or name
  end
  return asked_for
end

local function captures_from_the_right(literals, sent)
  local mirrored, found = {}, {}
  for place, literal in ipairs(literals) do mirrored[#literals + 1 - place] = literal:reverse() end
  local captured = captures(mirrored, sent:reverse())
  for place, part in ipairs(captured) do found[#captured + 1 - place] = part:reverse() end
  return found
end

-- Return the name that an entry turns into this one, nil for none, and whether there are more.
local function name_sent_as(entry, sent)
  local captured = captures(entry.form, sent)
  if not captured then return nil, false end
  if not entry.has_one_name then return nil, true end
  local texts = {}
  for place, part in ipairs(captures_from_the_right(entry.form, sent)) do
    if part ~= captured[place] then return nil, true end
    texts[entry.captures[place]] = part
  end
  local name = entry.literals[1]
  for number, part in ipairs(texts) do name = name .. part .. entry.literals[number + 1] end
  return name, false
end

-- Return the client's name that is sent as this one, if exactly one can be.
function models.asked_for(map, sent)
  local asked = map.asked[sent]
  if asked ~= nil then return asked or nil end
  local found
  for _, entry in ipairs(map.sent_as) do
    local name, has_more = name_sent_as(entry, sent)
    if has_more then return nil end
    if name and head.sent_model(map, name) == sent then
      if found and found ~= name then return nil end
      found = name
    end
  end
  return found
end
