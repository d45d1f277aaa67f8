--- incidents: those of a part, as its result carries them. A child's come from another process: each is read whatever its shape, and
--- one that cannot be read is left out.
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

--- All incidents of a part: this node's, then those that its child gave.
---@param body { job: string, part: string }
---@param of_child any
---@return table[]
function incidents.of(body, of_child)
  local out = incidents.all(errors.incidents_of { job = body.job, part = body.part })
  for _, incident in ipairs(incidents.all(of_child)) do out[#out + 1] = incident end
  return out
end

return incidents
