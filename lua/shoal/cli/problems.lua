--- problems: a line of a check as fields, for programs. Every message of a check has one form:
---   FILE:LINE: PLACE: what is wrong; expected ...; did you mean ...?
local problems = {}

--- Where the text before a colon is a place: dotted keys, indices, `answers["lead"]`.
local PLACE = '^([%a_][%w_]*[%w_.%[%]"%-]*): (.*)$'

local function trimmed(words) return words and words:gsub("^%s+", ""):gsub("%s+$", "") end

--- One line. `file`: the checked file, for lines without a place.
---@param line string
---@param file string
---@return { file: string, line?: integer, column?: integer, at?: string, problem: string, found?: string, expected?: string, hint?: string }
function problems.of(line, file)
  local where, number, rest = line:match "^(.-):(%d+): (.*)$"
  if not where or where:find "%s" and where ~= file then
    number, rest = nil, line
    if line:sub(1, #file + 2) == file .. ": " then where, rest = file, line:sub(#file + 3) else where = file end
  end
  local column, after = rest:match "^JSON: character (%d+): (.*)$"
  local at, words = rest:match(PLACE)
  if at and at:find "^JSON" then at, words = nil, nil end
  local text = words or after or rest
  local hint = text:match 'did you mean "?([^"?]+)"?%?'
  local expected = text:match "expected ([^;]-)[;,] found" or text:match "expected ([^;]-)%f[;\0]" or text:match "expected ([^;]*)$"
  local found = text:match "found (%b\"\")" or text:match "found ([^;,]+)"
  if hint then expected = expected and expected:gsub(", did you mean.*$", "") end
  return {
    file = where, line = math.tointeger(tonumber(number)), column = math.tointeger(tonumber(column)), at = at, problem = text,
    found = trimmed(found and found:gsub(", did you mean.*$", "")), expected = trimmed(expected), hint = hint,
  }
end

return problems
