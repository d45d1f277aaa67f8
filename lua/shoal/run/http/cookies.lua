--- http.cookies: a cookie jar, as RFC 6265 says.
---
---     local jar = cookies.new(function () return now_in_seconds end)
---     jar:store("shop.example", "/cart/add", response:values "set-cookie")
---     local line = jar:header("shop.example", "/cart", false)      -- "a=1; b=2", or nil
---
--- A cookie belongs to the host that set it, or with Domain to that domain and all below it; a Domain that does not cover the host, is a
--- single word, or is an address of numbers is refused, with the cookie. There is no list of public suffixes here. Secure cookies are
--- kept, and sent over https, or to this machine, only. A jar holds at most JAR_MAX cookies, HOST_MAX of one domain, COOKIE_BYTES_MAX bytes
--- each: the one that expires or was set first makes place, a larger one is refused.
local cookies = {}

cookies.JAR_MAX, cookies.HOST_MAX, cookies.COOKIE_BYTES_MAX = 3000, 50, 4096

local LOOPBACK = { localhost = true, ["127.0.0.1"] = true, ["::1"] = true }

local Jar = {}
Jar.__index = Jar

---@param now_s fun(): number  seconds since 1970
function cookies.new(now_s) return setmetatable({ now_s = now_s, list = {}, order = 0, refused = 0 }, Jar) end

-- Dates ----------------------------------------------------------------------------------------------------------------

local MONTHS = { jan = 1, feb = 2, mar = 3, apr = 4, may = 5, jun = 6, jul = 7, aug = 8, sep = 9, oct = 10, nov = 11, dec = 12 }

--- Days from 1970-01-01 to this date of the Gregorian calendar.
local function days(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = year // 400
  local of_era = year - era * 400
  local of_year = (153 * (month + (month > 2 and -3 or 9)) + 2) // 5 + day - 1
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
end

--- A cookie's date in seconds since 1970, or nil (RFC 6265, 5.1.1): the parts may come in any order.
---@return integer?
function cookies.date(text)
  local hour, minute, second, day, month, year
  for token in text:gmatch "[^\t\32-\47\59-\64\91-\96\123-\126]+" do
    local h, m, s = token:match "^(%d%d?):(%d%d?):(%d%d?)%f[%D]"
    if not hour and h then hour, minute, second = tonumber(h), tonumber(m), tonumber(s)
    elseif not day and token:find "^%d%d?%f[%D]" then day = tonumber(token:match "^%d+")
    elseif not month and MONTHS[token:sub(1, 3):lower()] then month = MONTHS[token:sub(1, 3):lower()]
    elseif not year and token:find "^%d%d%d?%d?%f[%D]" then year = tonumber(token:match "^%d+") end
  end
  if not (hour and day and month and year) then return nil end
  if year >= 70 and year <= 99 then year = year + 1900 elseif year <= 69 then year = year + 2000 end
  if day < 1 or day > 31 or year < 1601 or hour > 23 or minute > 59 or second > 59 then return nil end
  return math.tointeger(days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second)
end

-- Storing --------------------------------------------------------------------------------------------------------------

local function is_numeric(host) return host:find(":", 1, true) ~= nil or host:find "^%d+%.%d+%.%d+%.%d+$" ~= nil end

local function domain_matches(host, domain)
  return host == domain or not is_numeric(host) and host:sub(-#domain - 1) == "." .. domain
end

local function path_matches(path, cookie_path)
  if path == cookie_path then return true end
  return path:sub(1, #cookie_path) == cookie_path and (cookie_path:sub(-1) == "/" or path:sub(#cookie_path + 1, #cookie_path + 1) == "/")
end

local function default_path(path)
  if path:sub(1, 1) ~= "/" then return "/" end
  local up = path:match "^(.*)/"
  return up == "" and "/" or up
end

local function trim(text) return (text:match "^[ \t]*(.-)[ \t]*$") end

--- A Set-Cookie line as a cookie, or nil when it must be ignored.
local function parse(line, host, path, now_s)
  if line:find "[%z\1-\8\10-\31\127]" then return nil end
  local pair, attributes = line:match "^([^;]*)(.*)$"
  local name, value = pair:match "^([^=]*)=(.*)$"
  if not name then return nil end
  name, value = trim(name), trim(value)
  if name == "" or #name + #value > cookies.COOKIE_BYTES_MAX then return nil end
  local c = { name = name, value = value, domain = host, host_only = true, path = default_path(path) }
  local max_age, expires
  for attribute in attributes:gmatch ";([^;]*)" do
    local key, given = attribute:match "^([^=]*)=(.*)$"
    key, given = trim(key or attribute):lower(), trim(given or "")
    if key == "expires" then expires = cookies.date(given) or expires
    elseif key == "max-age" then if given:find "^-?%d+$" then max_age = tonumber(given) end
    elseif key == "domain" then if given ~= "" then c.wanted = given:gsub("^%.", ""):lower() end
    elseif key == "path" then c.path = given:sub(1, 1) == "/" and given or default_path(path)
    elseif key == "secure" then c.secure = true end
  end
  if c.wanted and c.wanted ~= host then
    if not domain_matches(host, c.wanted) or not c.wanted:find(".", 1, true) then return nil end
    c.domain, c.host_only = c.wanted, false
  elseif c.wanted then
    c.host_only = is_numeric(host)
  end
  if max_age then c.expires_s = max_age <= 0 and -math.huge or now_s + max_age else c.expires_s = expires or math.huge end
  return c
end

--- Remove the cookie to lose: one that expired, else the oldest of those for which `among` holds.
local function make_place(jar, now_s, among)
  local worst
  for i, c in ipairs(jar.list) do
    if among(c) and (c.expires_s <= now_s or not worst) then
      worst = i
      if c.expires_s <= now_s then break end
    end
  end
  if worst then table.remove(jar.list, worst) end
end

---@param host string  in lower case
---@param path string  of the request, without its query
---@param lines string[]  values of Set-Cookie
function Jar:store(host, path, lines)
  local now_s = self.now_s()
  for _, line in ipairs(lines) do
    local c = parse(line, host, path, now_s)
    if not c then
      self.refused = self.refused + 1
    else
      local of_domain = 0
      for i = #self.list, 1, -1 do
        local old = self.list[i]
        if old.domain == c.domain then
          of_domain = of_domain + 1
          if old.name == c.name and old.path == c.path and old.host_only == c.host_only then
            c.order = old.order -- It keeps its place among cookies of equal paths (RFC 6265, 5.3, 11.3).
            table.remove(self.list, i)
            of_domain = of_domain - 1
          end
        end
      end
      if c.expires_s > now_s then
        if of_domain >= cookies.HOST_MAX then make_place(self, now_s, function (old) return old.domain == c.domain end) end
        if #self.list >= cookies.JAR_MAX then make_place(self, now_s, function () return true end) end
        if not c.order then self.order, c.order = self.order + 1, self.order + 1 end
        self.list[#self.list + 1] = c
      end
    end
  end
end

-- Sending --------------------------------------------------------------------------------------------------------------

--- The value of the Cookie header for this request, or nil: longer paths first, then older ones.
---@param host string  in lower case
---@param path string  without its query
---@param secure boolean
---@return string? line
function Jar:header(host, path, secure)
  local found, now_s = {}, self.now_s()
  secure = secure or LOOPBACK[host] -- As browsers and curl do.
  for i = #self.list, 1, -1 do
    local c = self.list[i]
    if c.expires_s <= now_s then
      table.remove(self.list, i)
    elseif (c.host_only and c.domain == host or not c.host_only and domain_matches(host, c.domain)) and path_matches(path, c.path)
      and (secure or not c.secure) then
      found[#found + 1] = c
    end
  end
  if #found == 0 then return nil end
  table.sort(found, function (a, b)
    if #a.path ~= #b.path then return #a.path > #b.path end
    return a.order < b.order
  end)
  local words = {}
  for i, c in ipairs(found) do words[i] = c.name .. "=" .. c.value end
  return table.concat(words, "; ")
end

--- Forget all cookies.
function Jar:clear() self.list = {} end

return cookies
