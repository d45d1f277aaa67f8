--- out: the one writer of the command line. Data goes to stdout, talk to stderr.
---
---     out.data(text)       an answer, with a newline; false when it could not be written
---     out.raw(bytes)       bytes of a job's output as they are
---     out.talk(text)       a line to people
---     out.code(code)       the exit code of the command, given what was written
---
--- Data that cannot be written is lost data: one line on stderr says so, and the exit code is LOST. When the reader of stdout has gone
--- (`shoal jobs | head -1`), there is no line, and the exit code is that of a program that SIGPIPE ended.
---
--- Text that people read is harmless to their terminal: control bytes of other people's output, names and messages are written as \x1b,
--- whether stdout is a terminal or not. JSON has them as \u001b.
local core = require "shoal.core.node"

local out = { json = false, wrote = false, LOST = 74, SIGPIPE = 141 } -- 74 is EX_IOERR of sysexits.

local WAIT_MS = 2 -- Another process may have made our stdout non-blocking: then we wait for its reader as a blocking write does.

--- Characters that move the cursor, hide text or reverse its direction: as their code. Newlines and tabs stay.
---@param text string
---@return string
function out.safe(text)
  text = text:gsub("[\0-\8\11-\31\127]", function (c) return ("\\x%02x"):format(c:byte()) end)
  if not text:find "[\128-\255]" then return text end
  if not utf8.len(text) then -- An 8-bit terminal takes single bytes above 127 for controls.
    local pieces, at = {}, 1
    while at <= #text do
      local valid, bad = utf8.len(text, at)
      if valid then bad = #text + 1 end
      pieces[#pieces + 1] = text:sub(at, bad - 1)
      if bad <= #text then pieces[#pieces + 1] = ("\\x%02x"):format(text:byte(bad)) end
      at = bad + 1
    end
    text = table.concat(pieces)
  end
  text = text:gsub("\xc2([\x80-\x9f])", function (c) return ("\\x%02x"):format(c:byte()) end)
  return (text:gsub("\xe2[\x80\x81][\x8e\x8f\xa6-\xae]", function (c)
    local code = utf8.codepoint(c)
    local turns = code == 0x200e or code == 0x200f or code >= 0x202a and code <= 0x202e or code >= 0x2066 and code <= 0x2069
    return turns and ("\\u{%x}"):format(code) or c
  end))
end

--- All of `text`, at once.
---@param fd integer
---@return true? ok, string? err, string? code
function out.write(fd, text)
  if core.simulated() then
    local stream = fd == 1 and io.stdout or io.stderr
    local ok, err = stream:write(text)
    if ok then ok, err = stream:flush() end
    if ok then return true end
    return nil, err, "EIO"
  end
  local uv = require "luv"
  local at = 1
  while at <= #text do
    local count, err, code = uv.fs_write(fd, at == 1 and text or text:sub(at), -1)
    if count then
      at = at + count
    elseif code == "EAGAIN" then
      uv.sleep(WAIT_MS)
    elseif code ~= "EINTR" then
      return nil, err:gsub("^%u+: ", ""), code
    end
  end
  return true
end

--- A line to people. Nobody is left to hear that stderr cannot be written.
function out.talk(text) out.write(2, out.safe(text) .. "\n") end

--- A prompt, without a newline.
function out.ask(text) out.write(2, out.safe(text)) end

local function put(text)
  if out.lost then return false end -- It was said once.
  local ok, err, code = out.write(1, text)
  if ok then
    out.wrote = true
    return true
  end
  out.lost = code
  if code ~= "EPIPE" then out.talk(("shoal: stdout: cannot write: %s (%s)"):format(err, code)) end
  return false
end

--- An answer: JSON, or text for people.
---@return boolean ok  false: the reader is gone, or the device is full; a command without end then ends
function out.data(text)
  if not out.json then text = out.safe(text) end
  return put(text:sub(-1) == "\n" and text or text .. "\n")
end

--- Bytes as they are, for files and pipes; harmless at a terminal.
function out.raw(bytes)
  local terminal = not core.simulated() and require("luv").guess_handle(1) == "tty"
  return put(terminal and out.safe(bytes) or bytes)
end

--- Watch stdout's reader, for a command that may have nothing to write for hours: `fn` is called when a pipe's reader has gone. Returns
--- a handle to close, or nothing where there is no pipe.
---@param fn fun()
---@return table? watch  closable
function out.watch_reader(fn)
  if core.simulated() then return nil end
  local uv = require "luv"
  local kind = uv.guess_handle(1)
  local poll = (kind == "pipe" or kind == "fifo") and uv.new_poll(1)
  if not poll then return nil end
  poll:unref()
  poll:start("d", function ()
    poll:stop()
    out.lost = out.lost or "EPIPE"
    fn()
  end)
  return setmetatable({}, { __close = function () poll:close() end })
end

--- The exit code: lost data is no success. An outcome that is none already stays.
function out.code(code)
  if not out.lost or code ~= 0 then return code end
  return out.lost == "EPIPE" and out.SIGPIPE or out.LOST
end

return out
