--- exec.folders: a working folder for each attempt of a command, which goes with the attempt.
---
---   make()   DATA/work/LIFE-N, mode 0700 -> the attempt -> remove(): when it holds anything, by `rm` beside the loop; else it waits
---            IDLE_MS for the next make(), for making and removing a folder costs as much as a third of a small command
---   a start  what an earlier life left in DATA/work is removed, also after a kill -9
---   a watch  every LOOK_MS `du` looks at the folders that are older than that; one past its bytes is told to `on_over`
---
--- The node's lock of its data folder keeps another life out of DATA/work.
local errors = require "shoal.base.errors"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local folders = {}
folders.__index = folders

folders.BYTES = 1 << 30  -- A folder may hold so much, unless the job says otherwise.
local LOOK_MS = 2000
local IDLE_MS = 50
local REMOVES_MAX = 500  -- Paths in one command line.
--- What a command made unreadable goes too. rm follows no link, and chmod -R follows none below its arguments.
local REMOVE = [[rm -rf -- "$@" 2> /dev/null; for p; do [ -e "$p" ] || continue; chmod -R u+rwx -- "$p"; rm -rf -- "$p"; done]]

--- Run a program to its end; its status, signal and output. Waits.
local function run(self, argv)
  local ended, out = task.future "exec.folder", {}
  local process, err, code
  process, err, code = self.world:spawn {
    argv = argv, inherit = { "PATH" }, pipe = { stdout = true }, on_exit = function (status, signal)
      out.status, out.signal = status, signal
      if out.over then ended:settle(true) end
    end,
  }
  if not process then return nil, err, code end
  local stream = process:stream(1)
  local closing <close> = setmetatable({}, { __close = function ()
    stream:close()
    process:close()
  end })
  stream:attach {
    on_read = function (_, bytes) out[#out + 1] = bytes end,
    on_end = function ()
      out.over = true
      if out.status then ended:settle(true) end
    end,
  }
  ended:await() -- dropped: it is only ever set
  return out
end

--- A task: remove what waits to be removed.
local function remove_all(self)
  local free <close> = setmetatable({}, { __close = function () self.remover = nil end })
  while self.doomed[1] do
    local argv = { "sh", "-c", REMOVE, "rm" }
    table.move(self.doomed, 1, math.min(#self.doomed, REMOVES_MAX), #argv + 1, argv)
    self.doomed = table.move(self.doomed, REMOVES_MAX + 1, #self.doomed, 1, {})
    local out, err, code = run(self, argv)
    if not out then return errors.report("exec.folder", { path = argv[5] }, err, code) end
    if out.status ~= 0 or out.signal ~= 0 then
      errors.report("exec.folder", { path = argv[5] }, ("rm ended with status %d, signal %d"):format(out.status, out.signal))
    end
  end
end

local function doom(self, path)
  self.doomed[#self.doomed + 1] = path
  self.remover = self.remover or self.scope:spawn("exec.folder", { path = path }, remove_all, self)
end

--- Those whose size is due to be looked at.
local function old_ones(self)
  local out, now = {}, task.now_ms()
  for path, watched in sorted(self.watched) do
    if now - watched.since_ms >= LOOK_MS then out[#out + 1] = path end
  end
  return out
end

--- A task: look at sizes while there is a folder.
local function look(self)
  local free <close> = setmetatable({}, { __close = function () self.looker = nil end })
  while next(self.watched) do
    task.sleep(LOOK_MS)
    local paths = old_ones(self)
    local out, err, code
    if paths[1] then -- A status other than 0 means that something went while it looked.
      out, err, code = run(self, table.move(paths, 1, #paths, 4, { "du", "-skx", "--" }))
      if not out then errors.report("exec.folder", { path = paths[1] }, err, code) end
    end
    for kib, path in (out and table.concat(out) or ""):gmatch "(%d+)\t([^\n]+)" do
      local watched = self.watched[path]
      if watched and tonumber(kib) * 1024 > watched.bytes then watched.on_over(tonumber(kib) * 1024) end
    end
  end
end

--- Remove one that is empty.
local function remove_empty(self, path)
  local ok, err, code = self.world:remove_directory(path)
  if not ok and code ~= "ENOENT" then errors.report("exec.folder", { path = path }, err, code) end -- ENOENT: the command removed it.
end

--- A task: remove the spare folders that nobody needed.
local function prune(self)
  local free <close> = setmetatable({}, { __close = function () self.pruner = nil end })
  while self.spare[1] do
    task.sleep(IDLE_MS)
    local now = task.now_ms()
    while self.spare[1] and now - self.spare[1].since_ms >= IDLE_MS do remove_empty(self, table.remove(self.spare, 1).path) end
  end
end

--- A folder that is new, or as good as new.
local function take(self)
  local spare = table.remove(self.spare) -- The one that was used last: the others get old.
  if spare then return spare.path end
  self.count = self.count + 1
  local path = ("%s/%s-%d"):format(self.base, self.life, self.count)
  local ok, err, code = self.world:make_private(path)
  if not ok then return nil, err, code end
  return path
end

--- A new folder.
---@param bytes integer  what it may hold
---@param on_over fun(bytes: integer)  hears, perhaps more than once, of more
---@return string? path, string? err, string? code
function folders:make(bytes, on_over)
  local path, err, code = take(self)
  if not path then return nil, err, code end
  self.watched[path] = { bytes = bytes, on_over = on_over, since_ms = task.now_ms() }
  self.looker = self.looker or self.scope:spawn("exec.folder", { path = path }, look, self)
  return path
end

--- Remove a folder and all that it holds.
---@param path string
function folders:remove(path)
  self.watched[path] = nil
  local ok, _, code = self.world:check_private(path)
  if not ok and code == "ENOENT" then return end -- The command removed it.
  if not ok then return doom(self, path) end
  self.spare[#self.spare + 1] = { path = path, since_ms = task.now_ms() }
  self.pruner = self.pruner or self.scope:spawn("exec.folder", { path = path }, prune, self)
end

--- The folders of a worker, below DATA.
---@param world table
---@param scope table
---@param data string
---@return table? folders, string? err, string? code
function folders.open(world, scope, data)
  local self = setmetatable({
    world = world, scope = scope, base = data .. "/work", life = ("%08x"):format(world:random(1 << 32) - 1), count = 0,
    doomed = {}, watched = {}, spare = {},
  }, folders)
  local ok, err, code = world:make_directory(data)
  if ok then ok, err, code = world:make_private(self.base) end
  if not ok and code ~= "EEXIST" then return nil, err, code end
  local left
  left, err, code = world:list(self.base)
  if not left then return nil, err, code end
  for _, name in ipairs(left) do doom(self, self.base .. "/" .. name) end
  return self
end

return folders
