--- text: what stands where in a text of Lua or JSON that somebody wrote: the line of each key, keys that are given twice, the kind of
--- value that a Lua file returns. A table does not know its lines, so a pass over the tokens of the text finds them; a computed key
--- has no line. The text is one that compiles: of any other the answers mean nothing.
local text = {}

local ESCAPES = { n = "\n", t = "\t", r = "\r", a = "\a", b = "\b", f = "\f", v = "\v" }

--- What a quoted string holds; the same key in other spellings is the same key.
local function unquoted(body)
  if not body:find("\\", 1, true) then return body end
  body = body:gsub("\\z%s*", "")
  return (body:gsub("\\(u{?%x+}?)", function (code)
    local digits = code:match "^u{(%x+)}$" or code:match "^u(%x%x%x%x)"
    local rest = code:match "^u%x%x%x%x(%x*)$" or ""
    local value = digits and tonumber(digits, 16)
    return value and value < 0x80000000 and utf8.char(value) .. rest or nil
  end):gsub("\\x(%x%x)", function (digits) return string.char(tonumber(digits, 16)) end)
    :gsub("\\(%d%d?%d?)", function (digits) return tonumber(digits) < 256 and string.char(tonumber(digits)) or nil end)
    :gsub("\\(.)", function (char) return ESCAPES[char] or char end))
end

--- Whether this is JSON, by its first character: no Lua file begins so.
local function is_json(bytes) return bytes:find("^%s*[{%[]") ~= nil end

--- The tokens of a text, one by one: kind ("name", "string", "number", "other"), text, line, and a string's end line. Enough to follow
--- tables and their keys.
---@param bytes string
---@return fun(): string?, string?, integer?
function text.tokens(bytes)
  local json = is_json(bytes)
  local at, line = 1, 1
  local function advance(to)
    for _ in bytes:sub(at, to):gmatch("\n") do line = line + 1 end
    at = to + 1
  end
  return function ()
    while true do
      local _, blank = bytes:find("^%s+", at)
      if blank then advance(blank) end
      local level = not json and bytes:match("^%-%-%[(=*)%[", at)
      if level then
        local _, close = bytes:find("]" .. level .. "]", at, true)
        advance(close or #bytes)
      elseif not json and bytes:find("^%-%-", at) then
        advance((bytes:find("\n", at, true) or #bytes + 1) - 1)
      elseif not blank then
        break
      end
    end
    if at > #bytes then return nil end
    local here = line
    local name = bytes:match("^[%a_][%w_]*", at)
    if name then
      at = at + #name
      return "name", name, here
    end
    local number = bytes:match("^0[xX][%x.]+", at) or bytes:match("^%d[%d.]*[eE]?%d*", at)
    if number then
      at = at + #number
      return "number", number, here
    end
    local level = not json and bytes:match("^%[(=*)%[", at)
    if level then
      local from, close = at + #level + 2, select(2, bytes:find("]" .. level .. "]", at, true)) or #bytes
      local body = bytes:sub(from, close - #level - 2)
      advance(close)
      return "string", body, here
    end
    local quote = bytes:match("^[\"']", at)
    if quote then
      local stop = at + 1
      while true do
        stop = bytes:find("[\\\n\"']", stop) or #bytes + 1
        local char = bytes:sub(stop, stop)
        if char == "" or char == quote or char == "\n" then break end
        if char ~= "\\" then
          stop = stop + 1
        elseif bytes:sub(stop + 1, stop + 1) == "z" then
          stop = select(2, bytes:find("^%s*", stop + 2)) + 1
        else
          stop = stop + 2
        end
      end
      local body = unquoted(bytes:sub(at + 1, stop - 1))
      advance(math.min(stop, #bytes))
      return "string", body, here
    end
    local char = bytes:sub(at, at)
    at = at + 1
    return "other", char, here
  end
end

-- Keys -----------------------------------------------------------------------------------------------------------------

local OPENS = { ["function"] = true, ["do"] = true, ["if"] = true, ["repeat"] = true }
local CLOSES = { ["end"] = true, ["until"] = true }
local PAIRS = { ["}"] = "{", [")"] = "(", ["]"] = "[" }

--- A key's place in dotted form: `a.b[3].c`, as messages write it.
local function joined(path, key)
  if math.type(key) == "integer" then return ("%s[%d]"):format(path, key) end
  return path == "" and tostring(key) or path .. "." .. tostring(key)
end

--- Every token of a text, by index.
local function all_tokens(bytes)
  local kinds, values, lines, n = {}, {}, {}, 0
  for kind, value, line in text.tokens(bytes) do
    n = n + 1
    kinds[n], values[n], lines[n] = kind, value, line
  end
  return kinds, values, lines, n
end

--- The key that begins at token i of a table, and the token of its `=` or `:`; or nothing.
local function key_at(kinds, values, i)
  local function sign(at, char) return kinds[at] == "other" and values[at] == char end
  if kinds[i] == "name" and sign(i + 1, "=") and not sign(i + 2, "=") then return values[i], i + 1 end
  if kinds[i] == "string" and sign(i + 1, ":") then return values[i], i + 1 end
  if sign(i, "[") and (kinds[i + 1] == "string" or kinds[i + 1] == "number") and sign(i + 2, "]") and sign(i + 3, "=")
    and not sign(i + 4, "=") then
    local key = values[i + 1]
    if kinds[i + 1] == "number" then key = math.tointeger(tonumber(key)) or tonumber(key) end
    return key, i + 3
  end
end

---@class TextKeys
---@field lines table<string, integer>  where each key stands: `lines["workflows.warm.script"] = 7`, `lines["gates[1].name"] = 3`
---@field twice { path: string, line: integer, first: integer }[]  keys that one table has twice, in the order of their lines

--- The keys of a text's tables. Paths begin at each outermost table; where the file returns a literal one, at that.
---@param bytes string
---@return TextKeys
function text.keys(bytes)
  local kinds, values, places, n = all_tokens(bytes)
  local json = is_json(bytes)
  local lines, twice, stack, i = {}, {}, {}, 1
  local tables = 0 -- Open ones.
  local function enter(kind, path)
    stack[#stack + 1] = { kind = kind, path = path, seen = {}, count = 0, fresh = true }
    if kind == "{" then tables = tables + 1 end
  end
  local function leave(kind)
    local top = stack[#stack]
    if not top or top.kind ~= kind then return end
    stack[#stack] = nil
    if kind == "{" then tables = tables - 1 end
  end
  local function open_table()
    local top = stack[#stack]
    if tables == 0 then
      if kinds[i - 1] == "name" and values[i - 1] == "return" and #stack == 0 then lines = {} end
      return enter("{", "")
    end
    if top.kind ~= "{" or not top.path then return enter("{", nil) end
    local path = joined(top.path, top.key or top.count + 1)
    if not top.key then lines[path] = lines[path] or places[i] end
    enter("{", path)
  end
  local function take_key(top, key)
    local path, line = joined(top.path or "", key), places[i]
    if top.path and not lines[path] then lines[path] = line end
    local first = top.seen[key]
    if first then twice[#twice + 1] = { path = path, line = line, first = first } else top.seen[key] = line end
    top.key = key
  end
  while i <= n do
    local top, kind, value = stack[#stack], kinds[i], values[i]
    local key, sign
    if top and top.kind == "{" and top.fresh then
      top.fresh = false
      key, sign = key_at(kinds, values, i)
    end
    if key ~= nil then
      take_key(top, key)
      i = sign
    elseif kind == "other" then
      if value == "{" then
        open_table()
      elseif value == "(" or value == "[" then
        enter(value, nil)
      elseif PAIRS[value] then
        leave(PAIRS[value])
      elseif (value == "," or value == ";") and top and top.kind == "{" then
        if not top.key then top.count = top.count + 1 end
        top.key, top.fresh = nil, true
      end
    elseif kind == "name" and not json then
      if OPENS[value] then enter("block", nil) elseif CLOSES[value] then leave "block" end
    end
    i = i + 1
  end
  return { lines = lines, twice = twice }
end

--- The problems of keys that are given twice, each with both lines.
---@param bytes string
---@return { path: string, line: integer, text: string }[]
function text.twice(bytes)
  local out = {}
  for i, t in ipairs(text.keys(bytes).twice) do
    out[i] = { path = t.path, line = t.line, text = ("given twice, first on line %d; a table keeps only the last"):format(t.first) }
  end
  return out
end

--- The same as lines of a message.
---@param name string  the file's
---@return string[]
function text.twice_lines(bytes, name)
  local out = {}
  for i, t in ipairs(text.twice(bytes)) do out[i] = ("%s:%d: %s: %s"):format(name, t.line, t.path, t.text) end
  return out
end

--- The line of the first token that is this word, as a name or as a string; nil when there is none.
---@param bytes string
---@param word string
---@return integer?
function text.line_of(bytes, word)
  if word == "" or not bytes:find(word, 1, true) then return nil end
  for kind, value, line in text.tokens(bytes) do
    if value == word and kind ~= "other" then return line end
  end
end

-- What a file returns --------------------------------------------------------------------------------------------------

--- The kind of value that a Lua file returns, found from its text: "table" or "function" when its last statement returns a literal one
--- or a variable of the file that holds one; "other" for any other value (a call's result, a number); nil when it returns nothing. A
--- file that returns nothing is a program.
---@param bytes string
---@return "table"|"function"|"other"|nil
function text.gives(bytes)
  local depth, before, last, name = 0, nil, nil, nil
  local holds, returned = {}, nil -- Top-level variables; the two words after the top-level `return`.
  for kind, value in text.tokens(bytes) do
    local word = kind == "name" and value
    if depth == 0 and before == "function" and word then holds[word] = "function" end
    if depth == 0 and before == "=" and name and (value == "{" or word == "function") then
      holds[name] = value == "{" and "table" or "function"
    end
    if returned and #returned < 2 then returned[#returned + 1] = kind == "string" and "" or value end
    if depth == 0 and word == "return" then returned = {} end
    if word and OPENS[word] or value == "{" and kind == "other" then depth = depth + 1 end
    if word and CLOSES[word] or value == "}" and kind == "other" then depth = depth - 1 end
    if value == "=" then name = before else name = nil end
    before, last = kind == "string" and "" or value, value
  end
  if not returned or not last then return nil end
  local first, second = returned[1], returned[2]
  if first == "{" then return "table" end
  if first == "function" then return "function" end
  return (second == nil or second == ";") and holds[first] or "other"
end

return text
