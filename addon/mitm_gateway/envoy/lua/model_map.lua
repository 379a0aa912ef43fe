-- A rule's map of models, from the client's name to the upstream's and back.

local model_map = {}

-- Return a model name without a trailing `[1m]`, in any case and any number.
function model_map.base_name(name)
  local stop = #name
  while stop >= 4 and name:sub(stop - 3, stop):lower() == "[1m]" do stop = stop - 4 end
  return name:sub(1, stop)
end

local function mapped(models, name)
  if models.exact[name] then return models.exact[name] end
  if models.targets[name] then return name end
  for _, glob in ipairs(models.globs) do
    local captured = text.captures(glob[1], name)
    if captured then
      local pieces = {}
      for place, piece in ipairs(glob[2]) do
        pieces[place] = type(piece) == "number" and model_map.base_name(captured[piece]) or piece
      end
      return table.concat(pieces)
    end
  end
end

-- Return the name that the upstream gets for the one that the client asked for.
function model_map.sent_model(models, name)
  local base = model_map.base_name(name)
  local sent = mapped(models, name) or mapped(models, base)
  if sent then return sent end
  if text.any_covers(models.forms, base) then return base end
  if not models.default or text.any_covers(models.forms, name) then return name end
  return models.default
end

-- Return the client's name for each that is sent instead; the first of several counts.
function model_map.names_by_sent(names, map)
  local asked_for = {}
  for _, name in ipairs(names) do
    local sent = model_map.sent_model(map, name)
    asked_for[sent] = asked_for[sent] or name
  end
  return asked_for
end

local function captures_from_the_right(literals, sent)
  local mirrored, found = {}, {}
  for place, literal in ipairs(literals) do mirrored[#literals + 1 - place] = literal:reverse() end
  local captured = text.captures(mirrored, sent:reverse())
  for place, part in ipairs(captured) do found[#captured + 1 - place] = part:reverse() end
  return found
end

-- Return the name that an entry turns into this one, nil for none, and whether there are more.
local function name_sent_as(entry, sent)
  local captured = text.captures(entry.form, sent)
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
function model_map.asked_for(map, sent)
  local asked = map.asked[sent]
  if asked ~= nil then return asked or nil end
  local found
  for _, entry in ipairs(map.sent_as) do
    local name, has_more = name_sent_as(entry, sent)
    if has_more then return nil end
    if name and model_map.sent_model(map, name) == sent then
      if found and found ~= name then return nil end
      found = name
    end
  end
  return found
end
