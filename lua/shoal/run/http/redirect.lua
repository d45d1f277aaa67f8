--- http.redirect: where a redirect leads, and what is sent there (RFC 9110, 15.4; RFC 3986, 5.2).
local core = require "shoal.core.http"

local redirect = {}

local STATUSES = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

--- Where this response redirects to, as it says; nil when it does not.
---@param response table
---@return string? location
function redirect.location(response)
  if not STATUSES[response.status] then return nil end
  local location = response:values("location")[1]
  return location ~= "" and location or nil
end

--- Remove "." and ".." from a path (RFC 3986, 5.2.4).
local function without_dots(path)
  local out, trailing = {}, false
  for segment in path:gmatch "/([^/]*)" do
    trailing = segment == "." or segment == ".."
    if segment == ".." then out[#out] = nil
    elseif segment ~= "." then out[#out + 1] = segment end
  end
  return "/" .. table.concat(out, "/") .. (trailing and #out > 0 and "/" or "")
end

--- The address that `location` means when it came from `url`, which is absolute.
---@param url string
---@param location string
---@return string? url, string? err, string? code
function redirect.resolve(url, location)
  location = location:gsub("#.*", ""):gsub(" ", "%%20") -- Servers send raw blanks; everybody takes them.
  local origin, target = url:match "^(%a[%w+.-]*://[^/?#]*)([^#]*)"
  local path, query = target:match "^([^?]*)(.*)$"
  if path == "" then path = "/" end
  local full
  if location:find "^%a[%w+.-]*:" then
    full = location
  elseif location:sub(1, 2) == "//" then
    full = origin:match "^[^:]*:" .. location
  elseif location == "" then
    full = origin .. path .. query
  elseif location:sub(1, 1) == "?" then
    full = origin .. path .. location
  else
    local to, rest = location:match "^([^?]*)(.*)$"
    if to:sub(1, 1) ~= "/" then to = path:match "^(.*/)" .. to end
    full = origin .. without_dots(to) .. rest
  end
  local scheme, err, code = core.url(full)
  if not scheme then return nil, ("the redirect to %q: %s"):format(location:sub(1, 200), err), code end
  return full
end

--- The method of the next request: 303 makes it a GET (a HEAD stays one), 301 and 302 a GET of a POST, as everybody does and RFC 9110
--- allows; all others keep it.
---@return string method, boolean keeps_body
function redirect.method(status, method)
  if status == 303 and method ~= "HEAD" then return "GET", false end
  if (status == 301 or status == 302) and method == "POST" then return "GET", false end
  return method, true
end

local SECRET = { authorization = true, cookie = true, ["proxy-authorization"] = true, host = true }

--- The script's headers for the next request: those that describe a body go with it; secrets and the Host stay with their origin.
---@param headers? table
---@param keeps_body boolean
---@param same_origin boolean
---@return table? headers
function redirect.headers(headers, keeps_body, same_origin)
  if not headers or keeps_body and same_origin then return headers end
  local out = {}
  for name, value in next, headers do -- order-free: a copy
    local lower = type(name) == "string" and name:lower() or name
    local drop = not same_origin and SECRET[lower] or not keeps_body and type(lower) == "string" and lower:find "^content%-"
    if not drop then out[name] = value end
  end
  return out
end

return redirect
