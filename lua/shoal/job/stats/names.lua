--- stats.names: maps by name that stay small whatever names scripts use.
---
--- A map keeps the NAMES_MAX names that sort first. All others share one entry, OTHER, which does not count towards the limit. When a
--- smaller name evicts a larger one, the larger one's numbers move to OTHER, and its later numbers go there too. So a map's content
--- depends only on the names and numbers, not on their order or grouping: the NAMES_MAX first names of a union are among the NAMES_MAX
--- first names of each of its parts. A kept name therefore has the numbers of all parts that used it.
---
--- A script cannot give the names that we make (`reserved`), so its numbers never mix with ours.
local crc = require "shoal.core.crc"

local names = {}

names.NAMES_MAX = 200
names.NAME_BYTES_MAX = 200
names.OTHER = "(other)"

--- Names that are always kept and do not count towards the limit.
names.FIXED = { [names.OTHER] = true }

names.REDIRECT = " (redirect)" -- Behind the name of a request that follows a redirect.

--- The reason that a script may not give this name; nil: it may.
---@param name string
---@return string?
function names.reserved(name)
  if name == names.OTHER then return ("the name %q is ours: it stands for all names past the limit"):format(name) end
  if name:sub(-#names.REDIRECT) == names.REDIRECT then return ("the name %q ends as those of followed redirects do"):format(name) end
end

--- A name as records hold it: a long one is cut, and a digest of the whole distinguishes it from others with the same beginning.
---@param name string  any bytes
---@return string
function names.short(name)
  if #name <= names.NAME_BYTES_MAX then return name end
  local digest = ("...%08x"):format(crc.crc32c(name))
  return name:sub(1, names.NAME_BYTES_MAX - #digest) .. digest
end

---@class Names
---@field map table<string, any>  the entries, including OTHER; for reading
---@field count integer           kept names, without FIXED ones
---@field last? string            the greatest of them
local Names = {}
Names.__index = Names

--- An empty map.
---@param join fun(into: any?, from: any): any  add the entry `from` to `into`, or to nothing; returns the sum
---@param max? integer
---@return Names
function names.new(join, max)
  return setmetatable({ map = {}, count = 0, join = join, max = max or names.NAMES_MAX }, Names)
end

local function greatest(map)
  local last
  for name in next, map do -- order-free: the greatest
    if not names.FIXED[name] and (not last or name > last) then last = name end
  end
  return last
end

--- The key for this name now: the name itself, or OTHER. The caller adds an entry there if there is none.
---@param name string
---@return string
function Names:at(name)
  local map = self.map
  if map[name] ~= nil or names.FIXED[name] then return name end
  if self.count < self.max then
    self.count = self.count + 1
    if not self.last or name > self.last then self.last = name end
    return name
  end
  local out = self.last
  if not out or name > out then return names.OTHER end
  map[names.OTHER] = self.join(map[names.OTHER], map[out])
  map[out], map[name] = nil, false -- The new name counts in the search for the greatest.
  self.last = greatest(map)
  map[name] = nil
  return name
end

--- Merge an entry into the one of its name.
---@param name string
---@param entry any
function Names:add(name, entry)
  local at = self:at(name)
  self.map[at] = self.join(self.map[at], entry)
end

return names
