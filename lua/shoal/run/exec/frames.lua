--- exec.frames: what a worker and its child say to each other over the child's pipes.
---
---      0               4
---     +---------------+----------------------------------+
---     | length, u32 BE| MessagePack: a map with `type`   |      length: of the body, at most FRAME_MAX
---     +---------------+----------------------------------+
---
---   to the child (fd 0)       start{ job, workflow, part, attempt, fence, work, timeout_ms?, progress_ms }, once and first
---                             cancel{ reason }
---   from the child (fd 1)     progress{ record }, log{ text }, result{ state, reason?, record, incidents }, once and last
local msgpack = require "shoal.core.msgpack"

local frames = {}

frames.FRAME_MAX = 32 * 1024 * 1024

---@param message table
---@return string bytes
function frames.encode(message)
  return string.pack(">s4", assert(msgpack.pack(message)))
end

--- A reader of one direction: feed it bytes, and it hands on whole messages.
---@param on_message fun(message: table)
---@return fun(bytes: string): true?, string?, string? feed  nil, message, "MALFORMED": the rest of the stream is lost
function frames.reader(on_message)
  local buffered, broken = "", nil
  return function (bytes)
    if broken then return nil, broken, "MALFORMED" end
    buffered = buffered == "" and bytes or buffered .. bytes
    local at = 1
    while #buffered - at + 1 >= 4 do
      local length = string.unpack(">I4", buffered, at)
      if length > frames.FRAME_MAX then
        broken = ("a frame of %d bytes; at most %d (it begins with %q)"):format(length, frames.FRAME_MAX, buffered:sub(at, at + 15))
        return nil, broken, "MALFORMED"
      end
      if #buffered - at + 1 < 4 + length then break end
      local message, err = msgpack.unpack(buffered:sub(at + 4, at + 3 + length))
      if type(message) ~= "table" or type(message.type) ~= "string" then
        broken = "a frame that is no message: " .. (err or "no map with a type")
        return nil, broken, "MALFORMED"
      end
      at = at + 4 + length
      on_message(message)
    end
    buffered = buffered:sub(at)
    return true
  end
end

return frames
