--- incidents: those of one job or part, as results carry them. Incidents pass through policies, which operators edit, and those of a
--- child come from another process: here each is read whatever its shape, and what cannot be read is left out.
local errors = require "shoal.base.errors"

local incidents = {}

incidents.TEXT_MAX = 1000 -- Of a message or a place.

local function text(value)
  if type(value) == "string" then return #value <= incidents.TEXT_MAX and value or value:sub(1, incidents.TEXT_MAX - 3) .. "..." end
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
end

--- One incident with the fields that a result has of it, or nil.
---@param incident any
---@return { id: string, node: string, site: string, level: string, message: string, where: string?, count: integer? }?
function incidents.told(incident)
  if type(incident) ~= "table" then return nil end
  local id, site = text(incident.id), text(incident.site)
  if not id or not site then return nil end
  local count = incident.count
  return {
    id = id, node = text(incident.node) or "?", site = site, level = text(incident.level) or "error",
    message = text(incident.message) or "?", where = text(incident.where),
    count = math.type(count) == "integer" and count >= 0 and count < 1 << 53 and count or nil,
  }
end

--- Those of a list from wherever, in order.
---@param list any
---@return table[]
function incidents.all(list)
  local out = {}
  if type(list) ~= "table" then return out end
  for _, incident in ipairs(list) do out[#out + 1] = incidents.told(incident) end
  return out
end

--- This node's latest incidents of a job, or of one of its parts.
---@param job string
---@param part? string
---@return table[]
function incidents.of(job, part)
  local out = {}
  for _, incident in ipairs(errors.incidents()) do
    local ids = type(incident) == "table" and incident.ids
    if type(ids) == "table" and ids.job == job and (part == nil or ids.part == part) then out[#out + 1] = incidents.told(incident) end
  end
  return out
end

return incidents
