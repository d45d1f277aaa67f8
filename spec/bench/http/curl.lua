--- One request by curl, as a verdict: exit code, status, headers and body.
local curl = {}

local function shell(line)
  local pipe = assert(io.popen(line))
  local text = pipe:read "a"
  pipe:close()
  return text
end
curl.shell = shell

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function read(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local bytes = file:read "a"
  file:close()
  return bytes
end

--- The last head of a dump: name -> values. What stands behind its empty line are trailers.
local function headers_of(dump)
  local out, in_head, last = {}, false, nil
  for line in dump:gmatch "([^\n]*)\n" do
    line = line:gsub("\r$", "")
    if not in_head and line:find "^HTTP/" then
      out, in_head = {}, true
    elseif in_head and line == "" then
      in_head = false
    elseif in_head and line:find "^[ \t]" and last then
      last[#last] = last[#last] .. " " .. line:match "^[ \t]*(.-)[ \t]*$"
    elseif in_head then
      local name, value = line:match "^([^:]*):[ \t]*(.-)[ \t]*$"
      if name then
        name = name:lower()
        out[name] = out[name] or {}
        last = out[name]
        last[#last + 1] = value
      end
    end
  end
  return out
end

--- Run curl for one case.
---@param dir string   for its files
---@param url string
---@param c table      a case: method, headers, body, options { redirects, compressed, max_body_bytes, cookies }, timeout_s
function curl.run(dir, url, c)
  local words = { "curl -sS --http1.1 --noproxy '*' --path-as-is -g --max-time " .. (c.timeout_s or 2), "-o", dir .. "/body", "-D", dir
    .. "/head",
    "-w '%{http_code} %{exitcode} %{num_redirects}'" }
  local o = c.options or {}
  if c.method == "HEAD" then words[#words + 1] = "-I" elseif c.method and c.method ~= "POST"
    and c.method ~= "PUT" then words[#words + 1] = "-X " .. c.method end
  local lines = {}
  for name, value in pairs(c.headers or {}) do lines[#lines + 1] = " -H " .. quoted(name .. ": " .. value) end -- order-free: sorted
  table.sort(lines)
  words[#words + 1] = table.concat(lines)
  if not (c.headers and c.headers.Accept) then words[#words + 1] = "-H 'Accept:'" end
  if c.body then -- -X PUT with data would be a POST under another name, which a redirect makes a GET of that name.
    local file = assert(io.open(dir .. "/upload", "wb"))
    file:write(c.body)
    file:close()
    if not (c.headers and c.headers["Content-Type"]) then words[#words + 1] = "-H 'Content-Type:'" end
    words[#words + 1] = (c.method == "PUT" and "-T " or "--data-binary @") .. dir .. "/upload"
  end
  if o.redirects then words[#words + 1] = "-L --max-redirs " .. o.redirects end
  if o.compressed then words[#words + 1] = "--compressed" end
  if o.max_body_bytes then words[#words + 1] = "--max-filesize " .. o.max_body_bytes end
  if c.cookies then words[#words + 1] = "-b ''" end
  words[#words + 1] = quoted(url)
  os.remove(dir .. "/body")
  os.remove(dir .. "/head")
  local said = shell(table.concat(words, " ") .. " 2>" .. dir .. "/err")
  local status, code, redirects = said:match "(%d+) (%d+) (%d+)$"
  local exit = tonumber(code)
  return { exit = exit, status = tonumber(status), body = c.method == "HEAD" and "" or read(dir .. "/body"), headers = headers_of(read(dir
    .. "/head")), redirects = tonumber(redirects),
    why = read(dir .. "/err"):gsub("\n.*", "") }
end

return curl
