--- results: the results of ended runs, in files beside the tier's log. The ledger holds each file's name, size and checksum.
---
--- A small result travels in the command that ends its run: a file would cost two more syncs. A larger one is a file that is durable
--- before the command is proposed, so that every committed end has its result. A new leadership removes files that no run names (their
--- command was never committed). A forgotten run's file is removed with it.
local crc32c = require("shoal.core.crc").crc32c
local errors = require "shoal.base.errors"
local task = require "shoal.base.task"

local results = {}
results.__index = results

results.INLINE_MAX = 8192

---@param node table
---@param directory string
function results.open(node, directory)
  local self = setmetatable({ world = node.world, directory = directory, node = node }, results)
  local ok, err, code = self.world:make_directory(directory)
  if not ok then return nil, err, code end
  return self
end

local function path_of(self, name) return self.directory .. "/" .. name end

--- Write a file off the loop. Waits.
local function put(self, name, bytes)
  local written = task.future "result"
  local ok, err, code = self.world:put_later(path_of(self, name), bytes, function (done, why, word) written:settle(done, why, word) end)
  if not ok then
    written:drop "the write was refused, which put_later returned"
    return nil, err, code
  end
  return written:await()
end

--- Keep a result. Waits.
---@param run table  the ledger's entry
---@param bytes string
---@return { result: string? , file: { name: string, bytes: integer, crc: integer }? }? kept, string? err, string? code
function results:keep(run, bytes)
  if #bytes <= results.INLINE_MAX then return { result = bytes } end
  local crc = crc32c(bytes)
  local name = ("%016x-%08x"):format(run.index, crc)
  local ok, err, code = put(self, name, bytes)
  if not ok then return nil, err, code end
  return { file = { name = name, bytes = #bytes, crc = crc } }
end

--- Write many small results of the ledger to one file. Waits.
---@param list { key: string, result: string }[]
---@return { file: string, runs: { run: string, at: integer, crc: integer }[] }? moved  for the command `move`
---@return string? err, string? code
function results:gather(list, index)
  local pieces, runs, at = {}, {}, 0
  for i, each in ipairs(list) do
    pieces[i], runs[i] = each.result, { run = each.key, at = at, crc = crc32c(each.result) }
    at = at + #each.result
  end
  local bytes = table.concat(pieces)
  local name = ("%016x-%08x.many"):format(index, crc32c(bytes))
  local ok, err, code = put(self, name, bytes)
  if not ok then return nil, err, code end
  return { file = name, runs = runs }
end

--- A kept result's bytes.
---@param run table
---@return string? bytes, string? err, string? code
function results:read(run)
  if run.result then return run.result end
  local file = run.file
  if not file then
    return nil, run.dropped and "the result was removed to make room (retention_bytes)" or "the run has no result", "NOT_FOUND"
  end
  local bytes, err, code = self.world:read_file(path_of(self, file.name))
  if not bytes then return nil, err, code end
  if file.at then bytes = bytes:sub(file.at + 1, file.at + file.bytes) end
  if #bytes ~= file.bytes or crc32c(bytes) ~= file.crc then
    return nil, ("%s: it is not what was written: %d bytes expected, found %d, or other content"):format(path_of(self, file.name), file.bytes,
      #bytes), "MALFORMED"
  end
  return bytes
end

function results:remove(name)
  if not name then return end
  local ok, err, code = self.world:unlink(path_of(self, name))
  if not ok and code ~= "ENOENT" then errors.report("lead.results", { path = path_of(self, name) }, err, code) end
end

--- Remove the files that no run of the ledger names.
---@param named table<string, boolean>
function results:sweep(named)
  local names, err, code = self.world:list(self.directory)
  if not names then
    errors.report("lead.results", { path = self.directory }, err, code)
    return
  end
  for _, name in ipairs(names) do
    if not named[name] then self:remove(name) end
  end
end

return results
