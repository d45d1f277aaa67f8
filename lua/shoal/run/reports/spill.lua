--- reports.spill: results on disk while they wait for their leader: one file each, which goes when the result was accepted.
---
---     offset  bytes
---     0       8     "shoalRS1"
---     8       4     CRC-32C of the body, big endian
---     12            the body: MessagePack of the record, `result` (bytes) included
---
--- A file is written off the loop, wholly or not at all, and read when the result's turn comes. After a restart the folder is read once;
--- a file that cannot be read is one incident, and is removed.
local crc = require "shoal.core.crc"
local errors = require "shoal.base.errors"
local msgpack = require "shoal.core.msgpack"

local spill = {}
spill.__index = spill

local MAGIC = "shoalRS1"
local HEAD = ">c8I4"
local NAME = "^r(%d+)$"
local STRINGS = { "job", "workflow", "part", "leader", "leader_name", "state", "result" }

---@param world table
---@param site string    where a failure is reported
---@param folder string
function spill.open(world, site, folder)
  return setmetatable({ world = world, site = site, folder = folder, last = 0 }, spill)
end

local function report(self, record, file, err, code)
  errors.report(self.site, { job = record.job or "?", part = record.part or "?", file = file }, err, code)
end

function spill.encode(record, result)
  local body = assert(msgpack.pack {
    job = record.job, workflow = record.workflow, part = record.part, attempt = record.attempt, fence = record.fence, leader = record.leader,
    leader_name = record.leader_name or "", state = record.state, reason = record.reason, stats = record.stats, result = result,
  })
  return HEAD:pack(MAGIC, crc.crc32c(body)) .. body
end

---@return table? record, string? err
function spill.decode(bytes)
  if #bytes < 12 then return nil, "it ends inside its head" end
  local magic, sum, at = HEAD:unpack(bytes)
  if magic ~= MAGIC then return nil, "it does not begin as a waiting result does" end
  local body = bytes:sub(at)
  if crc.crc32c(body) ~= sum then return nil, "its checksum does not fit" end
  local record, err = msgpack.unpack(body)
  if type(record) ~= "table" then return nil, err or "it holds no record" end
  for _, field in ipairs(STRINGS) do
    if type(record[field]) ~= "string" then return nil, "it has no " .. field end
  end
  if math.type(record.fence) ~= "integer" or math.type(record.attempt) ~= "integer" or type(record.stats) ~= "table" then
    return nil, "it has no fence, attempt or stats"
  end
  return record
end

--- Make sure of the folder. Not before it is needed: a node that never spills makes none.
local function folder(self)
  if self.made then return true end
  local ok, err, code = self.world:make_directory(self.folder)
  if not ok and code ~= "EEXIST" then return nil, err, code end
  self.made = true
  return true
end

local function next_name(self)
  self.last = self.last + 1
  return ("%s/r%d"):format(self.folder, self.last)
end

--- Write a record's result. `on_done(file)` comes once, later, with the file, or with nil after the incident.
---@param record table
---@param result string
---@param on_done fun(file: string?)
---@return boolean begun  false: it was refused, which was reported
function spill:put(record, result, on_done)
  local file = next_name(self)
  local ok, err, code = folder(self)
  if ok then
    ok, err, code = self.world:put_later(file, spill.encode(record, result), function (done, why, word)
      if not done then report(self, record, file, why, word) end
      on_done(done and file or nil)
    end)
  end
  if not ok then report(self, record, file, err, code) end
  return ok ~= nil
end

--- The same at once, for the end of the node.
---@return string? file
function spill:put_now(record, result)
  local file = next_name(self)
  local ok, err, code = folder(self)
  if ok then ok, err, code = self.world:put_durable(file, spill.encode(record, result)) end
  if ok then return file end
  report(self, record, file, err, code)
end

--- A result's bytes.
---@return string? result, string? err, string? code
function spill:read(file)
  local bytes, err, code = self.world:read_file(file)
  if not bytes then return nil, err, code end
  local record, problem = spill.decode(bytes)
  if not record then return nil, ("%s: %s"):format(file, problem), "MALFORMED" end
  return record.result
end

function spill:remove(record, file)
  local ok, err, code = self.world:unlink(file)
  if not ok and code ~= "ENOENT" then report(self, record, file, err, code) end
end

--- The results that an earlier life of this node left here, oldest first, without their bytes.
---@return { record: table, file: string, bytes: integer }[]
function spill:found()
  local list, err, code = self.world:list(self.folder)
  if not list then
    if code ~= "ENOENT" then report(self, {}, self.folder, err, code) end
    return {}
  end
  local numbers, out = {}, {}
  for _, name in ipairs(list) do
    local number = math.tointeger(tonumber(name:match(NAME) or ""))
    if number and number >= 0 and number < 1 << 53 then numbers[#numbers + 1] = number end
  end
  table.sort(numbers)
  for _, number in ipairs(numbers) do
    local file = ("%s/r%d"):format(self.folder, number)
    self.last = math.max(self.last, number)
    local bytes, problem, why = self.world:read_file(file)
    local record
    if bytes then record, problem = spill.decode(bytes) end
    if record then
      local size = #record.result
      record.result = nil
      out[#out + 1] = { record = record, file = file, bytes = size }
    else
      report(self, {}, file, problem, why or "MALFORMED")
      if bytes then self:remove({}, file) end
    end
  end
  return out
end

return spill
