--- data: a node's name, its data folder, and the lock that keeps another process out of the folder.
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"

local data = {}

local FOLDER = ".shoal"
local LOOK_MS = 2000

--- Without a name of its own a node is called by role and port, so that a restart finds its data again; where the system chooses
--- the port there is none yet, and the name is a new one each time. Addresses beyond this machine's are part of it, for two
--- machines may use one port.
---@param config table
---@return string name
function data.name(config, role, world)
  if config.name ~= "" then return config.name end
  local host, port = config.bind:match "^(.*):(%d+)$"
  if role == "client" or not port or port == "0" then return ("%s-%04x"):format(role, world:random(65536) - 1) end
  local elsewhere = not (host:find "^127%." or host == "[::1]" or host == "localhost")
  return role .. (elsewhere and "-" .. host:gsub("[^%w%.]+", "-"):gsub("^%-", ""):gsub("%-$", "") or "") .. "-" .. port
end

---@return string folder
function data.folder(config, name)
  return config.data ~= "" and config.data or FOLDER .. "/" .. name
end

log.event("node.new_data", { "data", "siblings" })

--- A leader without a past, beside folders of its role: perhaps one of those was meant. One line, no more: a second node of a role
--- begins so too.
local function look_around(self)
  if self.config.data ~= FOLDER .. "/" .. self.name or self.world:stat(self.config.data) then return end
  local siblings = {}
  for _, other in ipairs(self.world:list(FOLDER) or {}) do -- It may not be there: then there are no siblings.
    if self.world:stat(("%s/%s/%ss"):format(FOLDER, other, self.role)) then siblings[#siblings + 1] = other end
  end
  if #siblings > 0 then log.warning("node.new_data", { data = self.config.data, siblings = table.concat(siblings, " ") }) end
end

--- Lock the folder for as long as this process lives. A client keeps nothing and has none.
---@param self table  the node
---@return true? ok, string? err, string? code  "BUSY": another process has it
function data.lock(self)
  if self.role == "client" then return true end
  look_around(self)
  local made, err, code = self.world:make_directory(self.config.data)
  if not made then return nil, err, code end
  self.data_lock, err, code = self.world:lock(self.config.data .. "/lock")
  if not self.data_lock then return nil, ("%s is another node's: %s"):format(self.config.data, err), code end
  return true
end

--- Look every few seconds whether the folder is still there. Once it is gone the node runs on, and says so once: what it writes is lost,
--- and another process may take the folder's name.
---@param self table
function data.watch(self)
  if not self.data_lock then return true end
  local told
  self.scope:loop("node.data", { data = self.config.data }, { interval_ms = LOOK_MS, first_ms = LOOK_MS }, function ()
    local ok, err, code = self.data_lock:check()
    if ok or told then return end
    told = true
    errors.report("node.data", { data = self.config.data },
      ("%s was removed or replaced under this node: restart it, with its old folder put back if there is one (%s)"):format(self.config.data,
        err), code)
  end)
  return true
end

---@param self table
function data.unlock(self)
  if self.data_lock then self.data_lock:close() end
  self.data_lock = nil
end

return data
