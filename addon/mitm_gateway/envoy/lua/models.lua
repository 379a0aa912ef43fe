-- Model names in a JSON body: their places, along the paths of the API that the request asks.

local models = {}

local REASONS = CONSTANTS.reasons
local QUOTE, BACKSLASH, LETTER_A, OPEN_OBJECT, OPEN_ARRAY = 34, 92, 97, 123, 91
local value_end, refuse = json.value_end, json.refuse

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

-- Find the models in the value at `at`; `node` marks the texts in it that are models. Return its end.
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
function models.distinct(places, first)
  local names, known = { first }, {}
  if first then known[first] = true end
  for place = 1, #places do
    local name = places[place].name
    if not known[name] then known[name], names[#names + 1] = true, name end
  end
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
  return found, models.distinct(found, own), may_have_betas
end

local write = escapes.new_writer()

-- Return the body with each model as a rule's map names it.
function models.renamed(body, places, map)
  local pieces, done = {}, 0
  for _, place in ipairs(places) do
    local sent = model_map.sent_model(map, place.name)
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
