--- A server of bytes: each path is one case of raw_cases.lua, /ok a plain answer.
---
---   shoal lua spec/bench/http/raw.lua serve ADDRESS       serves until it is killed
---   raw.serve(world, address, cases) -> listener          within a process
local raw = {}

local OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

--- Send the pieces of a case, 5 ms apart, then do what comes after.
local function answer(world, stream, case, open, done)
  local i, timer = 0, nil
  local function step()
    if not open() then return timer:close() end
    i = i + 1
    local piece = case.bytes[i]
    if piece and piece ~= "" then stream:write(piece) end -- dropped: a client that has seen enough has closed
    if i < #case.bytes then return timer:start(5) end
    timer:close()
    if case.after == "close" then
      stream:shutdown() -- dropped: the same
      return
    end
    if case.after ~= "hang" then done() end
  end
  timer = world:timer(step)
  timer:start(0)
end

---@param world table
---@param address string
---@param cases table[]
---@return table? listener, string? err
function raw.serve(world, address, cases)
  local by_path = { ["/ok"] = { bytes = { OK } } }
  for _, case in ipairs(cases) do by_path["/" .. case.name] = case end
  return world:listen(address, function (stream)
    local buffer, busy, open = "", false, true
    local function next_request()
      local head, rest = buffer:match "^(.-\r\n\r\n)(.*)$"
      if not head or busy then return end
      buffer, busy = rest, true
      local case = by_path[head:match "^%S+ ([^%s?]+)"] or { bytes = { "HTTP/1.1 599 No Such Case\r\nContent-Length: 0\r\n\r\n" } }
      answer(world, stream, case, function () return open end, function ()
        busy = false
        next_request()
      end)
    end
    stream:attach {
      on_read = function (_, bytes)
        buffer = buffer .. bytes
        next_request()
      end,
      on_end = function ()
        open = false
        stream:close()
      end,
    }
  end)
end

if (...) == "serve" then
  package.path = "./?.lua;" .. package.path
  local world = require("shoal.core.world").current()
  assert(raw.serve(world, select(2, ...), require "spec.bench.http.raw_cases"))
end

return raw
