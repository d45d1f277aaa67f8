--- http.request: a request as a script gives it, checked, and as bytes.
---
---     { url = "/a" | "http://host/a", method = "GET", headers = { Name = "value" | 1 | { "several", "lines" } | false }, body = "...",
---       timeout_ms = 30000, name = "...",       name: under which a user's request is recorded
---       expect = 404 | { 200, 404 } | function (response) return true end,     else a status of 400 or more counts as failed
---       response_body = "keep" | "discard" | function (piece, response) end,   of each piece as it comes; it may wait
---       max_body_bytes = 16777216,     a larger body is an error (TOO_LARGE); no limit by default for a body that is not kept
---       redirects = 0,                 how many are followed
---       compressed = false }           ask for gzip and deflate, and decode them
---
--- Methods are tokens, and case-sensitive (RFC 9110, 9.1): a standard one in another case is sent in upper case, all others as given.
--- CONNECT is refused.
---
--- A header that the script sets replaces ours of that name, whatever its case; `false` removes it (Host and Content-Length stay). Some
--- are refused: Transfer-Encoding, and a Content-Length that is not the body's, for the framing is ours; two Hosts; names that begin with
--- X-Shoal- in a user's request, for a target's log is compared by them.
local core = require "shoal.core.http"

local request = {}

local METHODS = {}
for _, method in ipairs { "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE" } do METHODS[method] = method end
local HAS_BODY = { POST = true, PUT = true, PATCH = true }
local METHOD_BYTES_MAX = 64
local REDIRECTS_MAX = 50
local BODY_BYTES_MAX = 1 << 40

--- The method to send, or nil and the problem.
local function method_of(text)
  local known = METHODS[text]
  if known then return known end
  if type(text) ~= "string" then return nil, "method: expected a string, found a " .. type(text) end
  if not core.token(text) or #text > METHOD_BYTES_MAX then
    return nil, ("method: expected a token of at most %d bytes, such as GET; found %q"):format(METHOD_BYTES_MAX, text:sub(1, 100))
  end
  local upper = text:upper()
  if upper == "CONNECT" then return nil, "method: CONNECT is not possible, for it makes a tunnel" end
  return METHODS[upper] or text
end
request.method = method_of

-- Headers --------------------------------------------------------------------------------------------------------------

local names, names_count = {}, 0 -- Header names that were checked, and their lower case.
local NAMES_MAX = 512

local function lower_of(name)
  local lower = names[name]
  if lower then return lower end
  if type(name) ~= "string" or not core.token(name) then return nil end
  lower = name:lower()
  if names_count < NAMES_MAX then names[name], names_count = lower, names_count + 1 end
  return lower
end

--- Names that change what is sent besides their line, or that stand on one line only.
local SPECIAL = {
  host = true, ["content-length"] = true, ["transfer-encoding"] = true, connection = true, upgrade = true, ["user-agent"] = true,
  ["accept-encoding"] = true, cookie = true, authorization = true,
}
local ONCE = { host = true, ["content-length"] = true, ["user-agent"] = true, authorization = true }

--- One line. A line break would begin a second header, or a second request.
local function line_of(name, value)
  local kind = type(value)
  if kind == "number" then
    value = tostring(value)
  elseif kind ~= "string" then
    return nil, ("header %s: expected a string, a number, a list of them, or false; found a %s"):format(name, kind)
  end
  if value:find "[%z\1-\8\10-\31\127]" then
    return nil, ("header %s: the value has a line break or another control character"):format(name)
  end
  return name .. ": " .. value .. "\r\n"
end

--- What a special header means. Returns the problem.
local function special(own, lower, name, value)
  if ONCE[lower] then
    if own[lower] ~= nil then return ("header %s is given twice, in two cases"):format(name) end
    if type(value) == "table" and #value > 1 then return ("header %s: expected one value, found %d"):format(name, #value) end
  end
  if type(value) == "table" then value = value[1] end
  if lower == "host" then
    if type(value) ~= "string" or value:find "[%s/,@\\]" then return ("header %s: expected a host, found %q"):format(name, tostring(value)) end
  elseif lower == "transfer-encoding" and value ~= false then
    return ("header %s: the framing of a request is the client's; leave the header out"):format(name)
  end
  own[lower] = own[lower] or value or false
end

--- The lines of these headers in a fixed order, and the special ones by lower name; or nil and the problem.
---@param headers table
---@param ours? table<string, true>  lower names of lines that the client sends anyway
---@param reserved? string           a prefix of names that are refused
---@return string? lines
---@return table|string|nil own
function request.lines(headers, ours, reserved)
  local lines, own, n = {}, nil, 0
  for name, value in next, headers do -- order-free: sorted below
    local lower = lower_of(name)
    if not lower then return nil, ("%q is not a header name"):format(tostring(name)) end
    if reserved and lower:sub(1, #reserved) == reserved then return nil, ("header %s: names that begin with %s are the client's"):format(name,
      reserved) end
    if SPECIAL[lower] or ours and ours[lower] then
      own = own or {}
      local problem = special(own, lower, name, value)
      if problem then return nil, problem end
    end
    if value and lower ~= "content-length" and lower ~= "host" then
      local several = type(value) == "table"
      local text = several and {} or nil
      for _, each in ipairs(several and value or { value }) do
        local line, problem = line_of(name, each)
        if not line then return nil, problem end
        if text then text[#text + 1] = line else text = line end
      end
      n = n + 1
      lines[n] = several and table.concat(text) or text
    elseif value and lower == "host" then
      local line, problem = line_of("Host", type(value) == "table" and value[1] or value)
      if not line then return nil, problem end
      own.host_line = line
    end
  end
  if n > 1 then table.sort(lines) end
  return table.concat(lines), own
end

-- Checks ---------------------------------------------------------------------------------------------------------------

local function whole(field, value, min, max)
  local n = type(value) == "number" and math.tointeger(value)
  if not n or n < min or n > max then
    return ("%s: expected a whole number from %d to %d, found %s"):format(field, min, max, tostring(value))
  end
end

local function status(value) return math.type(value) == "integer" and value >= 100 and value <= 999 end

local CHECKS = {
  url = function (value) if type(value) ~= "string" then return "url: expected a string, found a " .. type(value) end end,
  method = function (value) return select(2, method_of(value)) end,
  name = function (value) if type(value) ~= "string" then return "name: expected a string, found a " .. type(value) end end,
  body = function (value)
    if type(value) ~= "string" then
      return ("body: expected a string, found a %s%s"):format(type(value), type(value) == "table" and "; json.encode makes one" or "")
    end
  end,
  headers = function (value)
    if type(value) ~= "table" then return "headers: expected a table such as { Accept = \"text/plain\" }, found a " .. type(value) end
  end,
  timeout_ms = function (value)
    if type(value) ~= "number" or not (value > 0 and value <= 1e9) then
      return "timeout_ms: expected milliseconds, more than 0 and at most 1e9; found " .. tostring(value)
    end
  end,
  expect = function (value)
    if type(value) == "function" or status(value) then return end
    local fine = type(value) == "table" and #value > 0
    for _, each in ipairs(fine and value or {}) do fine = fine and status(each) end
    if not fine then return "expect: expected a status, a list of them such as { 200, 404 }, or a function of the response" end
  end,
  response_body = function (value)
    if type(value) ~= "function" and value ~= "keep" and value ~= "discard" then
      return 'response_body: expected "keep", "discard" or a function of each piece; found ' .. tostring(value)
    end
  end,
  max_body_bytes = function (value) return whole("max_body_bytes", value, 1, BODY_BYTES_MAX) end,
  redirects = function (value) return whole("redirects", value, 0, REDIRECTS_MAX) end,
  compressed = function (value) if type(value) ~= "boolean" then return "compressed: expected true or false, found " .. tostring(value) end end,
}

--- What requests may have by default, in a client's options and in the `http` of a script.
request.DEFAULTS = { timeout_ms = true, expect = true, response_body = true, max_body_bytes = true, redirects = true, compressed = true }

local function unknown(field, allowed)
  local known = {}
  for name in next, allowed do known[#known + 1] = name end -- order-free: sorted below
  table.sort(known)
  return ("%s: no such option; there are %s"):format(tostring(field), table.concat(known, ", "))
end

--- Check the defaults of requests. Returns the problem.
---@param defaults table
---@return string? problem
function request.problem(defaults)
  for field, value in next, defaults do -- order-free: with two problems, either one is named
    if not request.DEFAULTS[field] then return unknown(field, request.DEFAULTS) end
    local problem = CHECKS[field](value)
    if problem then return problem end
  end
end

--- A request of its own, checked but for its headers: `method` and `url` go before those of the options.
---@param method? string
---@param url? string
---@param options? table
---@return table? r, string? problem
function request.new(method, url, options)
  local r = { method = method, url = url, lines = "", count = 0, plain = false }
  if options ~= nil then
    if type(options) ~= "table" then return nil, "options: expected a table such as { body = ... }, found a " .. type(options) end
    for field, value in next, options do -- order-free: with two problems, either one is named
      local check = CHECKS[field]
      if not check then return nil, unknown(field, CHECKS) end
      local problem = check(value)
      if problem then return nil, problem end
      if r[field] ~= nil then
        return nil, ("%s: it is %q in this call; request { url = ..., method = ... } takes another"):format(field, tostring(r[field]))
      end
      r[field] = value
    end
  end
  if not method then r.method = method_of(r.method or "GET") end
  if type(r.url) ~= "string" then return nil, CHECKS.url(r.url) end
  return r
end

--- Whether this response is what the request expects.
---@param expect any
---@param response table
---@return boolean
function request.expected(expect, response)
  local found = response.status
  if expect == nil then return found < 400 end
  if type(expect) == "function" then return expect(response) and true or false end
  if type(expect) == "number" then return found == expect end
  for _, each in ipairs(expect) do
    if each == found then return true end
  end
  return false
end

-- Bytes ----------------------------------------------------------------------------------------------------------------

--- The end of a head: the length of the body.
---@return string? lines, string? problem
function request.length_lines(method, body, own)
  local given = own and own["content-length"]
  if given and tostring(given) ~= tostring(body and #body or 0) then
    return nil, ("header Content-Length: %s was given and the body has %d bytes; leave the header out"):format(tostring(given), body and #body
      or 0)
  end
  if method == "TRACE" and body then return nil, "body: a TRACE has none" end
  if body or HAS_BODY[method] or given then return ("Content-Length: %d\r\n\r\n"):format(body and #body or 0) end
  return "\r\n"
end

return request
