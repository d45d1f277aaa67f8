--- file: a file of the user that a command writes at its end (`submit --result FILE`), opened before the work begins.
---
---   a plain file     replaced at once when all is written: a new file of its own name in the same folder gets the bytes and the old
---                    mode, is synced and renamed over the old one. A file that cannot be written is refused at the start.
---   several names    (hard links), another owner, a folder that takes no new file: written in place
---   a link           its target is the file; the link stays
---   a device, a pipe written into, as `>` does; /dev/stdout and /dev/fd/N are our own descriptors
local common = require "shoal.cli.common"
local task = require "shoal.base.task"

local file = {}
file.__index = file

local LINKS_MAX = 40   -- As Linux follows.
local READER_MS = 5000 -- How long a named pipe may have no reader.
local AGAIN_MS = 10

local function luv() return require "luv" end

--- The path behind links, also when its last target does not exist yet.
local function target_of(path)
  local uv = luv()
  for _ = 1, LINKS_MAX do
    local next_path = uv.fs_readlink(path)
    if not next_path then return path end
    path = next_path:sub(1, 1) == "/" and next_path or (path:match "^(.*/)[^/]*$" or "") .. next_path
  end
  return nil, "ELOOP: too many levels of links", "ELOOP"
end

local function reason(err) return (err:gsub("^%u+: ", ""):gsub(": [^:]*$", "")) end

--- A file of a name that nothing else has, beside `path`.
local function beside(path)
  return luv().fs_mkstemp((path:match "^(.*/)[^/]*$" or "") .. ".shoal-result-XXXXXX")
end

--- Open for writing into what is there. A named pipe waits for its reader. In a task.
local function into(path, kind)
  local uv = luv()
  local flags = uv.constants.O_WRONLY | uv.constants.O_NOCTTY | (kind == "fifo" and uv.constants.O_NONBLOCK or 0)
  local deadline_ms = task.now_ms() + READER_MS
  while true do
    local fd, err, code = uv.fs_open(path, flags, 0)
    if fd then return fd end
    if code ~= "ENXIO" or kind ~= "fifo" or task.now_ms() >= deadline_ms then
      return nil, code == "ENXIO" and kind == "fifo" and "no process reads from this pipe" or reason(err), code
    end
    task.sleep(10 * AGAIN_MS)
  end
end

--- Whether a replacement would change what others see of the file: its other names, its owner.
local function is_shared(about)
  return about.nlink > 1 or about.uid ~= luv().getuid()
end

--- Open `path` for one write at the end. In a task.
---@return table? handle, string? err, string? code
function file.open(path)
  if path == "" then return nil, "the name is empty", "ENOENT" end
  local uv = luv()
  local own = path == "/dev/stdout" and 1 or path == "/dev/stderr" and 2 or math.tointeger(tonumber(path:match "^/dev/fd/(%d+)$"
    or path:match "^/proc/self/fd/(%d+)$"))
  if own then
    local about, err, code = uv.fs_fstat(own)
    if not about then return nil, reason(err), code end
    return setmetatable({ path = path, fd = own, borrowed = true }, file)
  end
  local about, err, code = uv.fs_stat(path)
  if not about and code ~= "ENOENT" then return nil, reason(err), code end
  if about and about.type == "directory" then return nil, "it is a folder", "EISDIR" end
  local self = setmetatable({ path = path }, file)
  if about and about.type ~= "file" then
    self.fd, err, code = into(path, about.type)
    if not self.fd then return nil, err, code end
    return self
  end
  self.target, err, code = target_of(path)
  if not self.target then return nil, reason(err), code end
  if about then
    self.fd, err, code = uv.fs_open(path, uv.constants.O_WRONLY, 0) -- Not emptied before there is something to put there.
    if not self.fd then return nil, reason(err), code end
    self.mode = about.mode & 0xfff
    if is_shared(about) then return self end
  end
  local fd, temporary, word = beside(self.target)
  if fd then
    self.replacement, self.temporary = fd, temporary
  elseif not about then
    return nil, reason(temporary), word
  end
  return self
end

local function write_all(fd, bytes)
  local uv = luv()
  local at = 1
  while at <= #bytes do
    local count, err, code = uv.fs_write(fd, at == 1 and bytes or bytes:sub(at), -1)
    if count then
      at = at + count
    elseif code == "EAGAIN" then
      task.sleep(AGAIN_MS)
    elseif code ~= "EINTR" then
      return nil, err, code
    end
  end
  return true
end

--- Plain files are synced; what is no disk has nothing to sync.
local function sync(fd)
  local ok, err, code = luv().fs_fsync(fd)
  if ok or code == "EINVAL" or code == "ENOTSUP" or code == "EROFS" then return true end
  return nil, err, code
end

local function umask()
  local text = io.open "/proc/self/status"
  local mask = text and text:read("a"):match "Umask:%s*(%d+)"
  if text then text:close() end
  return tonumber(mask or "22", 8)
end

local function replace(self, bytes)
  local uv = luv()
  local ok, err, code = write_all(self.replacement, bytes)
  if ok then ok, err, code = uv.fs_fchmod(self.replacement, self.mode or 438 & ~umask()) end -- 438: 0666
  if ok then ok, err, code = sync(self.replacement) end
  if ok then ok, err, code = uv.fs_rename(self.temporary, self.target) end
  if not ok then return nil, err, code end
  self.temporary = nil
  local folder = uv.fs_open(self.target:match "^(.*/)[^/]*$" or ".", "r", 0)
  if not folder then return true end -- The file is there and synced; the name of a folder that we may not read is not.
  ok, err, code = sync(folder)
  uv.fs_close(folder)
  return ok, err, code
end

local function write_into(self, bytes)
  if self.target then
    local ok, err, code = luv().fs_ftruncate(self.fd, 0)
    if not ok then return nil, err, code end
  end
  local ok, err, code = write_all(self.fd, bytes)
  if not ok then return nil, err, code end
  return sync(self.fd)
end

--- Write, sync and close.
---@return true? ok, string? err, string? code
function file:write(bytes)
  local put = self.replacement and replace or write_into
  local ok, err, code = put(self, bytes)
  self:close()
  if ok then return true end
  return nil, reason(err), code
end

--- Leave what is there as it is. Idempotent.
function file:close()
  local uv = luv()
  if self.temporary then uv.fs_unlink(self.temporary) end
  for _, name in ipairs { "fd", "replacement" } do
    if self[name] and not self.borrowed then uv.fs_close(self[name]) end
    self[name] = nil
  end
  self.temporary = nil
end

file.__close = file.close

--- The file that an option asks for, or nothing.
---@param path? string
---@return table? handle, string? problem
function file.asked(path)
  if not path then return nil end
  local handle, err, code = file.open(path)
  if not handle then return nil, ("%s (%s)"):format(err, code) end
  return handle
end

--- Write to what `asked` gave. Returns the command's exit code: `exit`, unless that was good and the bytes are lost.
---@return integer
function file.put(handle, path, bytes, exit)
  if not handle then return exit end
  local ok, err, code = handle:write(bytes)
  if ok then return exit end
  return common.refused("--result", ("cannot write %s: %s"):format(path, err), code, exit ~= 0 and exit or common.EXIT.lost)
end

return file
