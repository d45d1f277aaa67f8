--- options: what the parser of words does not know: values that begin with a dash, and options that contradict each other.
local options = {}

--- Options by alias, and whether each takes a value.
local function known(command)
  local out = {}
  for _, option in ipairs(command._options) do
    for _, alias in ipairs(option._aliases) do out[alias] = option._maxargs > 0 and "value" or "flag" end
  end
  return out
end

--- Whether a word is an option of the command: "--key", "--key=x", "-q", "-n20".
local function is_option(word, by_alias)
  return word == "--" or by_alias[word] or by_alias[word:match "^(%-%-[^=]+)="] or not word:find "^%-%-" and by_alias[word:sub(1, 2)]
end

--- The words with each value that begins with a dash joined to its option: `--timeout -1` as `--timeout=-1`.
---@param words string[]
---@param command table  of argparse
---@return string[]
function options.with_values(words, command)
  local by_alias, out, i = known(command), {}, 1
  while i <= #words do
    local word, value = words[i], words[i + 1]
    if word == "--" then return table.move(words, i, #words, #out + 1, out) end
    if by_alias[word] == "value" and value and value:find "^%-." and not is_option(value, by_alias) then
      out[#out + 1] = word:find "^%-%-" and word .. "=" .. value or word .. value
      i = i + 2
    else
      out[#out + 1] = word
      i = i + 1
    end
  end
  return out
end

--- Whether the answer is JSON, also when the words as a whole are wrong.
---@param words string[]
function options.wants_json(words)
  for i, word in ipairs(words) do
    if word == "--" then return false end
    if word == "--output=json" or word == "-ojson" or (word == "--output" or word == "-o") and words[i + 1] == "json" then return true end
  end
  return false
end

local function given(value) return value ~= nil and value ~= false and not (type(value) == "table" and #value == 0) end

--- The first contradiction, or nil. A rule is { "detach", "result", "why" }, or { "since", needs = { "events", "follow" }, "why" }.
---@param args table<string, any>
---@param rules? table[]
---@return string? problem
function options.clash(args, rules)
  for _, rule in ipairs(rules or {}) do
    if rule.needs and given(args[rule[1]]) then
      local found, names = false, {}
      for i, name in ipairs(rule.needs) do
        found, names[i] = found or given(args[name]), "--" .. name
      end
      if not found then return ("--%s needs %s: %s"):format(rule[1], table.concat(names, " or "), rule[2]) end
    elseif not rule.needs and given(args[rule[1]]) and given(args[rule[2]]) then
      return ("--%s and --%s contradict each other: %s"):format(rule[1], rule[2], rule[3])
    end
  end
end

return options
