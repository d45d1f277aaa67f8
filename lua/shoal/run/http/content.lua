--- http.content: the content of a response: its codings (RFC 9110, 8.4), and its way to a function piece by piece.
local inflate = require "shoal.core.inflate"
local redirect = require "shoal.run.http.redirect"

local content = {}

local DECODED_MAX = 16 * 1024 * 1024 -- Of a kept body, where the request gives no limit.
local CODINGS_MAX = 5
local SLICE = 4096 -- Deflate grows bytes at most 1032 times, so a decoded piece has at most 4 MiB.
local KINDS = { gzip = "gzip", ["x-gzip"] = "gzip", deflate = "deflate" }

--- Decoders for the codings of this response, the outermost first; an empty list when there are none.
local function decoders(response, max_bytes)
  local list = {}
  local value = response.headers["content-encoding"] or ""
  for word in value:gmatch "[^,%s]+" do
    local coding = word:lower()
    if coding ~= "identity" then
      if not KINDS[coding] then return nil, ("the Content-Encoding %q was not asked for"):format(word:sub(1, 100)), "BAD_CODING" end
      if #list == CODINGS_MAX then return nil, ("more than %d Content-Encodings"):format(CODINGS_MAX), "BAD_CODING" end
      table.insert(list, 1, inflate.open(KINDS[coding], max_bytes))
    end
  end
  return list
end

local function feed(list, bytes)
  for _, decoder in ipairs(list) do
    local out, err, code = decoder:feed(bytes)
    if not out then return nil, err, code end
    bytes = out
  end
  return bytes
end

local function finish(list)
  for _, decoder in ipairs(list) do
    local ok, err, code = decoder:finish()
    if not ok then return nil, err, code end
  end
  return true
end

--- The decoded body of a response.
---@param response table
---@param max_bytes? integer
---@return string? body, string? err, string? code
function content.decode(response, max_bytes)
  local list, err, code = decoders(response, max_bytes or DECODED_MAX)
  if not list then return nil, err, code end
  local body
  body, err, code = feed(list, response.body)
  if not body then return nil, err, code end
  local ok
  ok, err, code = finish(list)
  if not ok then return nil, err, code end
  return body
end

-- Sinks ----------------------------------------------------------------------------------------------------------------

local Sink = {}
Sink.__index = Sink

--- Whether this response is one that the request follows to another: its body is not what was asked for.
local function is_hop(self, head) return (self.r.redirects or 0) > 0 and redirect.location(head) ~= nil end

--- A sink for the pieces of a body: they go to fn(piece, response), decoded if the request asked for that.
---@param fn fun(piece: string, response: table)  runs in the caller's task, and may wait
---@param r table  the request
function content.sink(fn, r) return setmetatable({ fn = fn, r = r }, Sink) end

--- The next piece. Returns nil, the problem and its code when it cannot be decoded.
function Sink:piece(bytes, head)
  if not self.started then
    self.started, self.dropped = true, is_hop(self, head)
    if self.r.compressed and not self.dropped then
      local err, code
      self.decoders, err, code = decoders(head, self.r.max_body_bytes or 0)
      if not self.decoders then return nil, err, code end
    end
  end
  if self.dropped then return true end
  if not self.decoders or #self.decoders == 0 then
    self.fn(bytes, head)
    return true
  end
  for at = 1, #bytes, SLICE do
    local out, err, code = feed(self.decoders, bytes:sub(at, at + SLICE - 1))
    if not out then return nil, err, code end
    if out ~= "" then self.fn(out, head) end
  end
  return true
end

--- The response is complete; its `body` is the last piece.
function Sink:finish(response)
  if response.body ~= "" then
    local ok, err, code = self:piece(response.body, response)
    if not ok then return nil, err, code end
    response.body = ""
  end
  if self.decoders and self.started then return finish(self.decoders) end
  return true
end

-- Base64 ---------------------------------------------------------------------------------------------------------------

local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

---@param bytes string
---@return string
function content.base64(bytes)
  local out = {}
  for at = 1, #bytes, 3 do
    local a, b, c = bytes:byte(at, at + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    for i, shift in ipairs { 18, 12, 6, 0 } do
      local digit = (n >> shift & 63) + 1
      out[#out + 1] = (i == 3 and not b or i == 4 and not c) and "=" or DIGITS:sub(digit, digit)
    end
  end
  return table.concat(out)
end

return content
