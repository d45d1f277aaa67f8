--- The sites of one node, with their counts: what shoal.sites declares, the members of its families, and what scripts
--- add. A record holds everything that is known of a site; the counts in it are the ones of the balance.

local incidents = require "shoal.base.errors.incident"
local near = require "shoal.base.near"
local sorted = require "shoal.base.sorted"
local log = require "shoal.base.log"

local MEMBERS_MAX = 256 -- Sites of one family, and undeclared names; later ones share one record.

local NEAR_LENGTH = 4   -- A misspelt name is one edit from the one that was meant; two from 8 letters on.

local ROLES = { gate = true, manager = true, worker = true, client = true, any = true }
local DELIVERIES = { notify = true, must_deliver = true }

local catalogue = {}
catalogue.__index = catalogue

---@param handler_of fun(record: table): function  makes the message handler of a site's protected calls
function catalogue.new(handler_of)
  return setmetatable({ records = {}, handler_of = handler_of, undeclared = 0 }, catalogue)
end

--- Add a site that was checked; `name` is its own, or a member's of the family `declared.name`.
function catalogue:add(declared, name)
  local record = {
    name = name, role = declared.role, level = declared.level, ids = declared.ids, delivery = declared.delivery,
    hook = declared.hook, doc = declared.doc, family = name ~= declared.name and declared.name or nil,
    ids_meta = { __fields = declared.ids },
    raised = 0, reported = 0, suppressed = 0, handled = 0, in_flight = 0, missing = 0,
    flood = 0, flood_ns = 0,          -- Failures since then: see errors.lua.
    prints = {}, prints_count = 0,    -- Fingerprints: see errors/limit.lua.
    traced = {}, traced_count = 0, traces = 3,
  }
  record.handler = self.handler_of(record)
  self.records[name] = record
  self.sorted_names = nil
  return record
end

--- Declare a site; a wrong declaration raises at `level`.
---@param declared shoal.Site
function catalogue:declare(declared, level)
  local function want(what, ok)
    if not ok then error("errors.site: " .. tostring(declared.name) .. ": " .. what, level + 1) end
  end
  local hook = declared.hook
  want("name must be words joined by dots", type(declared.name) == "string" and declared.name:find "^[%w_]+%.[%w_.*]+$")
  want("it is declared already", not self.records[declared.name])
  want("role must be gate, manager, worker, client or any", ROLES[declared.role or "any"])
  want("level must be debug, info, warning, error or critical", log.levels[declared.level or "error"])
  want("delivery must be notify or must_deliver", DELIVERIES[declared.delivery or "notify"])
  want("ids must be a list of names", type(declared.ids or {}) == "table")
  want("hook must have args (names) or arity",
    not hook or type(hook.args) == "table" or math.type(hook.arity) == "integer")
  self:add({ name = declared.name, role = declared.role or "any", level = declared.level or "error",
    ids = declared.ids or {}, delivery = declared.delivery or "notify", hook = hook, doc = declared.doc or "" },
    declared.name)
end

--- All names, sorted.
function catalogue:names()
  local names = self.sorted_names
  if not names then
    names = sorted.keys(self.records)
    self.sorted_names = names
  end
  return names
end

local function family_of(self, name)
  local prefix = name
  while true do
    prefix = prefix:match "^(.+)%.[^.]*$"
    if not prefix then return nil end
    local family = self.records[prefix .. ".*"]
    if family then return family end
  end
end

--- Whether a family's new member is rather a declared sibling, misspelt.
local function misspelt(self, family, name)
  local prefix = family.name:sub(1, -2)
  local length = #name - #prefix
  if length < NEAR_LENGTH then return false end
  local siblings = {}
  for _, other in ipairs(self:names()) do
    if other:sub(1, #prefix) == prefix and other ~= family.name and not self.records[other].family then
      siblings[#siblings + 1] = other
    end
  end
  return incidents.nearest(name, siblings, length >= 2 * NEAR_LENGTH and 2 or 1) ~= nil
end

--- The record of this name: its own, or its family's member, made on first use; nil when there is neither, or when the
--- name is a slip of the pen for a declared site of the family.
function catalogue:find(name)
  if type(name) ~= "string" then return nil end
  local record = self.records[name]
  if record then return record end
  local family = family_of(self, name)
  if not family or misspelt(self, family, name) then return nil end
  family.members = (family.members or 0) + 1
  if family.members > MEMBERS_MAX then return family end
  return self:add(family, name)
end

--- Whether a file that names sites may name this one; it adds none. A member of a family counts unless it is a slip of the pen for a
--- declared sibling, however short.
---@return boolean known, string? meant
function catalogue:may_name(name)
  if type(name) ~= "string" then return false end
  local record = self.records[name]
  if record and not record.family then return true end
  local family = family_of(self, name)
  local meant, least
  local prefix = family and family.name:sub(1, -2)
  for _, other in ipairs(self:names()) do
    if family and other:sub(1, #prefix) == prefix and other ~= family.name and not self.records[other].family then
      local letters = #name - #prefix
      local edits = near.distance(name, other, letters < 2 * NEAR_LENGTH and 1 or 2)
      if edits <= (letters < 2 * NEAR_LENGTH and 1 or 2) and (not least or edits < least) then meant, least = other, edits end
    end
  end
  if family and not meant then return true end
  return false, meant or incidents.nearest(name, self:names())
end

--- The record for failures from a place that the catalogue does not hold.
function catalogue:stray(name)
  if self.undeclared >= MEMBERS_MAX then return self.records["errors.undeclared"] end
  self.undeclared = self.undeclared + 1
  return self:add({ name = name, role = "any", level = "error", ids = {}, delivery = "notify", doc = "undeclared" }, name)
end

--- What to say of a name that is no site.
function catalogue:unknown(name)
  local meant = type(name) == "string" and incidents.nearest(name, self:names())
  return "no site is named " .. tostring(name) .. (meant and ", did you mean " .. meant .. "?" or "")
    .. " (sites are declared in lua/shoal/base/sites.lua)"
end

return catalogue
