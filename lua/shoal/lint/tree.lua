--- Rules that need the whole tree: what is declared must be used. A site that nothing raises, a hook that nothing fires, a message
--- that nobody sends or handles, is a promise that is not kept; a role that hooks another role's site waits for ever.

local scan = require "shoal.lint.scan"

local tree = {}

local SITES = "lua/shoal/base/sites.lua"
local MESSAGES = "lua/shoal/wire/messages/"
local ROLES = "scripts/roles/"

local function under(path, ...)
  for _, prefix in ipairs { ... } do
    if path:sub(1, #prefix) == prefix then return true end
  end
  return false
end

---@class shoal.Literal
---@field path string
---@field line integer
---@field text string
---@field before string  code that leads to it
---@field key boolean    it is a table's key: ["it"] =

--- Every quoted string of a source, with what stands around it.
local function literals_of(source, out)
  local code, at = source.code, 1
  while true do
    local from, _, quote = code:find("([\"'])", at)
    if not from then return end
    local to = code:find(quote, from + 1, true)
    if not to then return end
    out[#out + 1] = {
      path = source.path, offset = from, source = source, text = source.uncommented:sub(from + 1, to - 1),
      before = code:sub(math.max(1, from - 60), from - 1), key = code:find("^%s*%]%s*=[^=]", to + 1) ~= nil,
    }
    at = to + 1
  end
end

local function line_of(literal) return scan.line_of(literal.source, literal.offset) end

local function fires(literal)
  return literal.before:find "[:.]fire%s*%(%s*$" or literal.before:find "[:.]deliver%s*%(%s*$"
end

--- Whether this string raises at the site: its name, its end behind `owner ..`, or a member of its family.
local function raises(literal, site, declared)
  if literal.key or site.hook and not fires(literal) then return false end
  local text, name = literal.text, site.name
  if text == name then return true end
  if text:sub(1, 1) == "." and literal.before:find "%.%.%s*$" and name:sub(-#text) == text then return true end
  local family = name:match "^(.*%.)%*$"
  return family ~= nil and text:sub(1, #family) == family and not declared[text]
end

local function check_sites(literals, sites, found)
  local declared, at = {}, {}
  for _, site in ipairs(sites) do declared[site.name] = true end
  for _, literal in ipairs(literals) do
    if literal.path == SITES then at[literal.text] = at[literal.text] or literal end
  end
  for _, site in ipairs(sites) do
    local used = false
    for _, literal in ipairs(literals) do
      local where = under(literal.path, "lua/", "c/", "scripts/") or under(literal.path, "spec/") and site.name:find "^spec%."
      if where and literal.path ~= SITES and not under(literal.path, "lua/shoal/lint/") and raises(literal, site, declared) then
        used = true
        break
      end
    end
    if not used then
      found(at[site.name], "site", ("nothing %s %s: it comes back with what does"):format(site.hook and "fires the hook of" or "raises at",
        site.name))
    end
  end
end

local function registers(literal) return literal.key or literal.before:find "[:.]handle%s*%(%s*$" or literal.before:find "[:.]raw%s*%(%s*$" end

local function check_messages(literals, found)
  local messages, sent, handled = {}, {}, {}
  for _, literal in ipairs(literals) do
    if under(literal.path, MESSAGES) then
      if literal.before:find "%f[%w_]name%s*=%s*$" then messages[#messages + 1] = literal end
    elseif under(literal.path, "lua/shoal/", ROLES) and not under(literal.path, "lua/shoal/lint/") then
      if registers(literal) then
        handled[literal.text] = true
      elseif not under(literal.path, ROLES) then -- What a role says that it sends is no sending.
        sent[literal.text] = true
      end
    end
  end
  for _, message in ipairs(messages) do
    local name = message.text
    if not sent[name] then found(message, "message", "nobody sends " .. name .. ": a command or a loop of the library must") end
    if not handled[name] then found(message, "message", "nobody handles " .. name) end
  end
end

--- A role's hooks are on sites that its role has.
local function check_roles(literals, sites, found)
  local by_name, role_of = {}, {}
  for _, site in ipairs(sites) do by_name[site.name] = site end
  for _, literal in ipairs(literals) do
    if under(literal.path, ROLES) and literal.before:find "%f[%w_]name%s*=%s*$" then
      role_of[literal.path] = role_of[literal.path] or literal.text
    end
  end
  for _, literal in ipairs(literals) do
    local site = literal.key and under(literal.path, ROLES) and by_name[literal.text]
    local role = site and role_of[literal.path]
    if site and not site.hook then
      found(literal, "hook", literal.text .. " is a site without a hook")
    elseif role and site.role ~= "any" and site.role ~= role then
      found(literal, "hook", ("%s is a site of the %s: a %s never fires it"):format(literal.text, site.role, role))
    end
  end
end

--- Check all sources together.
---@param files { path: string, text: string, kind: "lua"|"c" }[]
---@param sites { name: string, role: string, hook?: table }[]
---@return { path: string, line: integer, rule: string, message: string }[]
function tree.check(files, sites)
  local literals, findings = {}, {}
  for _, file in ipairs(files) do
    literals_of((file.kind == "c" and scan.c or scan.lua)(file.path, file.text), literals)
  end
  local function found(literal, rule, message)
    findings[#findings + 1] = {
      path = literal and literal.path or SITES, line = literal and line_of(literal) or 1, rule = rule, message = message,
    }
  end
  check_sites(literals, sites, found)
  check_messages(literals, found)
  check_roles(literals, sites, found)
  return findings
end

return tree
