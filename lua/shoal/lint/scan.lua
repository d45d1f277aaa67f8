--- Source with its comments and strings told apart, so that rules look at code and not at words about code.
--- Every text keeps its length and its line breaks: an offset in one is the same offset in the others.

local scan = {}

local function blank(text) return (text:gsub("[^\n]", " ")) end

---@class shoal.Source
---@field path string
---@field text string      as it is
---@field code string      comments and the insides of strings blanked
---@field uncommented string  comments blanked, strings kept
---@field comments string  everything but comments blanked
---@field lines integer

--- Cut the text into pieces: "code", "string" or "comment".
local function assemble(path, text, pieces)
  local code, uncommented, comments = {}, {}, {}
  for i, piece in ipairs(pieces) do
    local kind, part = piece[1], piece[2]
    code[i] = kind == "code" and part or kind == "string" and part:sub(1, 1) .. blank(part:sub(2, -2)) .. part:sub(-1)
      or blank(part)
    uncommented[i] = kind == "comment" and blank(part) or part
    comments[i] = kind == "comment" and part or blank(part)
  end
  local _, breaks = text:gsub("\n", "")
  return { path = path, text = text, code = table.concat(code), uncommented = table.concat(uncommented),
    comments = table.concat(comments), lines = breaks + (text:sub(-1) == "\n" and 0 or 1) }
end

local function closing_quote(text, at, quote)
  local from = at + 1
  while true do
    local stop = text:find("[" .. quote .. "\\\n]", from)
    if not stop then return #text end
    local c = text:sub(stop, stop)
    if c == "\\" then
      from = stop + 2
    else
      return stop -- The quote, or a line break in a broken string.
    end
  end
end

--- Lua: --, --[[ ]], "", '', [[ ]], [==[ ]==].
function scan.lua(path, text)
  local pieces, at, begun = {}, 1, 1
  local function piece(kind, from, to)
    if from > begun then pieces[#pieces + 1] = { "code", text:sub(begun, from - 1) } end
    pieces[#pieces + 1] = { kind, text:sub(from, to) }
    begun, at = to + 1, to + 1
  end
  if text:sub(1, 2) == "#!" then piece("comment", 1, (text:find("\n", 1, true) or #text + 1) - 1) end
  while true do
    local from = text:find("[%-\"'%[]", at)
    if not from then break end
    local c = text:sub(from, from)
    local level = text:match("^%[(=*)%[", from)
    local comment_level = text:match("^%-%-%[(=*)%[", from)
    if comment_level then
      local _, stop = text:find("]" .. comment_level .. "]", from, true)
      piece("comment", from, stop or #text)
    elseif text:sub(from, from + 1) == "--" then
      piece("comment", from, (text:find("\n", from, true) or #text + 1) - 1)
    elseif c == '"' or c == "'" then
      piece("string", from, closing_quote(text, from, c))
    elseif level then
      local _, stop = text:find("]" .. level .. "]", from, true)
      piece("string", from, stop or #text)
    else
      at = from + 1
    end
  end
  if begun <= #text then pieces[#pieces + 1] = { "code", text:sub(begun) } end
  return assemble(path, text, pieces)
end

--- C: //, /* */, "", ''.
function scan.c(path, text)
  local pieces, at, begun = {}, 1, 1
  local function piece(kind, from, to)
    if from > begun then pieces[#pieces + 1] = { "code", text:sub(begun, from - 1) } end
    pieces[#pieces + 1] = { kind, text:sub(from, to) }
    begun, at = to + 1, to + 1
  end
  while true do
    local from = text:find("[/\"']", at)
    if not from then break end
    local two = text:sub(from, from + 1)
    if two == "//" then
      piece("comment", from, (text:find("\n", from, true) or #text + 1) - 1)
    elseif two == "/*" then
      local _, stop = text:find("*/", from + 2, true)
      piece("comment", from, stop or #text)
    elseif two:sub(1, 1) == "/" then
      at = from + 1
    else
      piece("string", from, closing_quote(text, from, two:sub(1, 1)))
    end
  end
  if begun <= #text then pieces[#pieces + 1] = { "code", text:sub(begun) } end
  return assemble(path, text, pieces)
end

--- The line on which this offset stands.
function scan.line_of(source, offset)
  local starts = source.starts
  if not starts then
    starts = { 1 }
    for at in source.text:gmatch "\n()" do starts[#starts + 1] = at end
    source.starts = starts
  end
  local low, high = 1, #starts
  while low < high do
    local middle = (low + high + 1) // 2
    if starts[middle] <= offset then low = middle else high = middle - 1 end
  end
  return low
end

--- One line of one of the source's texts, without its break.
function scan.line(source, which, number)
  scan.line_of(source, 1)
  local from = source.starts[number]
  if not from then return "" end
  local to = source.starts[number + 1]
  return source[which]:sub(from, to and to - 2 or -1)
end

return scan
