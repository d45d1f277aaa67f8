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
--- Every response is a result: 404 and 500 are returned as such, and redirects are followed only when a request says so, for a load test
--- measures the request that it makes (request.lua has the fields of a request). Without a response the call returns `nil, message, code`;
--- `http.kind(code)` maps codes to a few words for statistics. https:// is refused for now (UNSUPPORTED).
local client = require "shoal.run.http.client"
local request = require "shoal.run.http.request"
local server = require "shoal.run.http.server"

local http = { client = client.new, server = server.open, expected = request.expected }

local KINDS = {
  ECONNREFUSED = "refused", TIMEOUT = "timeout", ETIMEDOUT = "timeout", ECONNRESET = "reset", EPIPE = "reset",
  ECONNABORTED = "reset", DISCONNECTED = "reset", NO_NAME = "dns", MALFORMED = "malformed", TOO_LARGE = "too_large",
  HEAD_TOO_LARGE = "head_too_large", TRUNCATED = "truncated", BAD_LENGTH = "bad_length", BAD_CHUNK = "bad_chunk",
  CANCELLED = "cancelled", BAD_CODING = "bad_coding", BAD_UPGRADE = "bad_upgrade", REDIRECTS = "redirects",
  EHOSTUNREACH = "unreachable", ENETUNREACH = "unreachable", EMFILE = "descriptors", ENFILE = "descriptors",
  EADDRNOTAVAIL = "ports", EADDRINUSE = "ports", UNSUPPORTED = "unsupported",
}

--- The kind of an error code, as one word: refused, timeout, reset, dns, unreachable, descriptors (this machine has none left), ports (the
--- same); malformed (no HTTP), truncated (the connection ended within the response), bad_length (Content-Length), bad_chunk, bad_coding
--- (Transfer-Encoding or Content-Encoding), head_too_large, too_large (the body), bad_upgrade, redirects (too many), unsupported,
--- cancelled (the script's function of pieces raised), other.
---@param code string
---@return string kind
function http.kind(code)
  if KINDS[code] then return KINDS[code] end
  if type(code) == "string" and code:find("^EAI_") then return "dns" end
  return "other"
end

local OPTIONS = { "cookies", "keep_alive" }

--- Check the `http` of a script: what its requests have by default, `cookies = true` and `keep_alive = false`. Returns the problem.
---@param given table
---@return string? problem
function http.problem(given)
  local rest = {}
  for field, value in next, given do rest[field] = value end -- order-free: a copy
  for _, field in ipairs(OPTIONS) do
    if rest[field] ~= nil and type(rest[field]) ~= "boolean" then return ("%s: expected true or false"):format(field) end
    rest[field] = nil
  end
  return request.problem(rest)
end

--- The options of http.client for a script's `http`.
---@param given? table
---@return table
function http.options(given)
  local out = { defaults = {} }
  for field, value in next, given or {} do out.defaults[field] = value end -- order-free: a copy
  for _, field in ipairs(OPTIONS) do out[field], out.defaults[field] = out.defaults[field], nil end
  return out
end

return http
