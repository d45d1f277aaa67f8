--- http: HTTP/1.1 over the world's streams: a client for virtual users, and a small server for specs and simulated hosts.
---
---     local client <close> = http.client(world, { base_url = "http://127.0.0.1:8081" })
---     local r, err, code = client:get("/cart")               -- in a task; waits
---     if r then print(r.status, #r.body, r.headers["content-type"]) else print(http.kind(code), err) end
---
---     local server = assert(http.server(world, "127.0.0.1:0", function (request)
---       return { status = 200, headers = { ["Content-Type"] = "text/plain" }, body = "hello", delay_ms = 5 }
---     end))
---
--- Every response is a result: 404 and 500 are returned as such, and redirects are not followed, for a load test measures the request
--- that it makes. Without a response the call returns `nil, message, code`; `http.kind(code)` maps codes to a few words for
--- statistics. https:// is refused for now (UNSUPPORTED).
local client = require "shoal.run.http.client"
local server = require "shoal.run.http.server"

local http = { client = client.new, server = server.open }

local KINDS = {
  ECONNREFUSED = "refused", TIMEOUT = "timeout", ETIMEDOUT = "timeout", ECONNRESET = "reset", EPIPE = "reset",
  ECONNABORTED = "reset", DISCONNECTED = "reset", NO_NAME = "dns", MALFORMED = "malformed", TOO_LARGE = "malformed",
  EHOSTUNREACH = "unreachable", ENETUNREACH = "unreachable", EMFILE = "descriptors", ENFILE = "descriptors",
  EADDRNOTAVAIL = "ports", EADDRINUSE = "ports", UNSUPPORTED = "unsupported",
}

--- The kind of an error code, as one word: refused, timeout, reset, dns, malformed, unreachable, descriptors (this machine has none
--- left), ports (the same), unsupported, other.
---@param code string
---@return string kind
function http.kind(code)
  if KINDS[code] then return KINDS[code] end
  if type(code) == "string" and code:find("^EAI_") then return "dns" end
  return "other"
end

return http
