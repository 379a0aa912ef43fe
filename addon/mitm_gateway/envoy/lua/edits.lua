-- Byte-exact edits of a checked JSON body: every byte that no edit names stays identical.

local edits = {}

local REASONS = CONSTANTS.reasons
local QUOTE, OPEN_OBJECT, OPEN_ARRAY = 34, 123, 91
local value_end, refuse, covers = json.value_end, json.refuse, text.covers

edits.ANY = true -- the step of a path to every element

-- The number of nested members that all edits of one request may still visit.
local members_left = 0

local function count()
  if members_left == 0 then refuse(REASONS.too_many) end
  members_left = members_left - 1
end

local function is_container(byte) return byte == OPEN_OBJECT or byte == OPEN_ARRAY end

-- Return the members of the object or array that opens at `at`, with their places; `visit` as in `json.each`.
local function members_of(text, p, at, visit)
  local members = { opening = at }
  members.closing = json.each(text, p, at, function(key, value, start)
    local finish = visit(key, value)
    members[#members + 1] = { key = key, start = start, value = value, finish = finish }
    return finish
  end)
  return members
end

-- The same for a container below the top level, whose members count.
local function nested_members_of(text, p, at, visit)
  return members_of(text, p, at, function(key, value)
    count()
    return visit(key, value)
  end)
end

local function spliced(text, found)
  if #found == 0 then return text end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  local pieces, done = {}, 0
  for _, edit in ipairs(found) do
    pieces[#pieces + 1] = text:sub(done + 1, edit[1])
    pieces[#pieces + 1] = edit[3]
    done = edit[2]
  end
  pieces[#pieces + 1] = text:sub(done + 1)
  return table.concat(pieces)
end

-- Take members and their commas out, and put a new one at the end.
local function change_members(members, gone, added, found)
  local kept = {}
  for number = 1, #members do
    if not gone[number] then kept[#kept + 1] = number end
  end
  local inside, count = members.opening + 1, #members
  if #kept == 0 then
    if count > 0 or added then found[#found + 1] = { inside, count > 0 and members.closing or inside, added or "" } end
    return
  end
  if kept[1] > 1 then found[#found + 1] = { members[1].start, members[kept[1]].start, "" } end
  for place, this in ipairs(kept) do
    local following = kept[place + 1] or count + 1
    if following - this > 1 then found[#found + 1] = { members[this].finish, members[following - 1].finish, "" } end
  end
  if added then
    local place = members[kept[#kept]].finish
    found[#found + 1] = { place, place, "," .. added }
  end
end

-- Return whether the object at `at` has the selector's key with a text that its glob covers.
local function selects(selector, text, p, at)
  local found = false
  json.each(text, p, at, function(key, value)
    count()
    local finish = value_end(p, value)
    if key == selector.key and p[value] == QUOTE and not found then
      found = covers(selector.glob, escapes.decoded(text:sub(value + 2, finish - 1)))
    end
    return finish
  end)
  return found
end

local function fits(step, key, text, p, at)
  if type(step) == "table" then
    return type(key) == "number" and p[at] == OPEN_OBJECT and selects(step, text, p, at)
  end
  return step == key or (step == edits.ANY and type(key) == "number")
end

-- Add the edits that remove the paths from the value at `at`, which their first steps lead to. Return its end.
local function prune(text, p, at, found, paths, depth)
  if not is_container(p[at]) then return value_end(p, at) end
  local gone, seen, any = {}, {}, false
  local walk = depth == 1 and members_of or nested_members_of
  local members = walk(text, p, at, function(key, value)
    local below, whole = {}, false
    for _, path in ipairs(paths) do
      if fits(path[depth], key, text, p, value) then
        whole = whole or #path == depth
        below[#below + 1] = path
      end
    end
    if depth == 1 and #below > 0 then
      if seen[key] then refuse(REASONS.repeated_key) end
      seen[key] = true
    end
    gone[#gone + 1] = whole
    any = any or whole
    if whole or #below == 0 then return value_end(p, value) end
    return prune(text, p, value, found, below, depth + 1)
  end)
  if any then change_members(members, gone, nil, found) end
  return members.closing + 1
end

-- Return the value inside the objects that the steps name; nil where a step asks for an array.
local function wrapped(path, depth, value)
  for place = #path, depth, -1 do
    if type(path[place]) ~= "string" then return nil end
    value = "{" .. escapes.quoted(path[place]) .. ":" .. value .. "}"
  end
  return value
end

-- Add the edits that set the path below the value at `at`. Return its end.
local function assign(text, p, at, found, path, depth, value)
  if depth > #path then
    local finish = value_end(p, at)
    if text:sub(at + 1, finish) ~= value then found[#found + 1] = { at, finish, value } end
    return finish
  end
  if not is_container(p[at]) then return value_end(p, at) end
  local step, namesakes = path[depth], 0
  local walk = depth == 1 and members_of or nested_members_of
  local members = walk(text, p, at, function(key, place)
    if not fits(step, key, text, p, place) then return value_end(p, place) end
    namesakes = namesakes + 1
    return assign(text, p, place, found, path, depth + 1, value)
  end)
  if type(step) == "string" and p[at] == OPEN_OBJECT then
    if namesakes > 1 then refuse(REASONS.repeated_key) end
    local built = namesakes == 0 and wrapped(path, depth + 1, value)
    if built then change_members(members, {}, escapes.quoted(step) .. ":" .. built, found) end
  end
  return members.closing + 1
end

-- Return the texts in the array that opens at `at`; nil for anything else.
local function strings_in(text, p, at)
  local names, is_text = {}, true
  if p[at] ~= OPEN_ARRAY then return nil end
  json.each(text, p, at, function(_, place)
    if p[place] ~= QUOTE then
      is_text = false
      return value_end(p, place)
    end
    local finish = json.string_end(p, place + 1)
    names[#names + 1] = escapes.decoded(text:sub(place + 2, finish - 1))
    return finish
  end)
  return is_text and names or nil
end

-- Return the beta names to send for the ones of a body, and whether they differ.
local function edited_betas(beta, names, drops_token)
  local own = {}
  for _, name in ipairs(names) do
    if not (drops_token and head.is_token_beta(name)) then own[#own + 1] = name end
  end
  if not beta then return own, #own < #names end
  local kept, changed = head.edited_betas(beta, own)
  return kept, changed or #own < #names
end

-- Return the number of the member with this key, nil if there is none.
local function number_of(members, key)
  local found
  for number, member in ipairs(members) do
    if member.key == key then
      if found then refuse(REASONS.repeated_key) end
      found = number
    end
  end
  return found
end

-- Edit the names in a member "anthropic_beta"; without any name left the member is removed.
local function edit_betas(text, p, members, found, beta, drops_token)
  local number = number_of(members, CONSTANTS.betas)
  if not number then return end
  local member = members[number]
  local names = strings_in(text, p, member.value)
  if not names then
    -- null is no list of names, and stays
    if beta and text:sub(member.value + 1, member.finish) ~= "null" then refuse(REASONS.betas_not_strings) end
    return
  end
  local kept, changed = edited_betas(beta, names, drops_token)
  if not changed then return end
  if #kept == 0 then return change_members(members, { [number] = true }, nil, found) end
  for place, name in ipairs(kept) do kept[place] = escapes.quoted(name) end
  found[#found + 1] = { member.value, member.finish, "[" .. table.concat(kept, ",") .. "]" }
end

-- Edit the names of betas at the top level and in the members that Converse passes on.
local function edit_every_beta(text, p, at, found, beta, drops_token)
  local function skip(_, value) return value_end(p, value) end
  local members = members_of(text, p, at, skip)
  edit_betas(text, p, members, found, beta, drops_token)
  for _, parent in ipairs(CONSTANTS.beta_parents) do
    local number = number_of(members, parent)
    local value = number and members[number].value
    if value and p[value] == OPEN_OBJECT then
      edit_betas(text, p, nested_members_of(text, p, value, skip), found, beta, drops_token)
    end
  end
end

-- Return the text after one step, which adds its edits to a list.
local function after(text, step, ...)
  local p, at = json.open(text)
  local found = {}
  step(text, p, at, found, ...)
  return spliced(text, found)
end

-- Apply a rule's edits to a body that `json.scan` has checked: betas, then removals, then values to set. With
-- `drops_token` the betas that belong to the client's token leave too.
function edits.apply(text, rule, drops_token)
  members_left = CONSTANTS.max_members
  if rule.beta or drops_token then text = after(text, edit_every_beta, rule.beta, drops_token) end
  if rule.body_remove[1] then text = after(text, prune, rule.body_remove, 1) end
  for _, value in ipairs(rule.body_set) do text = after(text, assign, value[1], 1, value[2]) end
  return text
end
