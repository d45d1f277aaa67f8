--- bench http_corpus: our HTTP client beside curl, over the answers of nginx, apache2, haproxy and Node.js, and over odd bytes.
---
---   scripts/bench http_corpus [--only WORD]      WORD: a part of "SERVER NAME"
---
--- For each case both make the same request. The verdict is a refusal, or the status, the headers (all values, but Date) and the body.
--- A case may say why curl's verdict is another one: an RFC is then named. After each answer over a kept connection, the next request of
--- ours must find its own answer. Bars: at least 150 cases; no case differs without a reason; no case that has a reason agrees.
package.path = "./?.lua;" .. package.path

local curl = require "spec.bench.http.curl"
local http = require "shoal.http"
local node = require "shoal.core.node"
local raw_cases = require "spec.bench.http.raw_cases"
local servers = require "spec.bench.http.servers"
local task = require "shoal.task"
local world = require("shoal.core.world").current()

local TIMEOUT_MS = 1500
local CASES_MIN = 150

local only = ""
do
  local words = { ... }
  if words[1] == "--only" and words[2] then only = words[2] elseif words[1] then
    io.stderr:write "usage: scripts/bench http_corpus [--only WORD]\n"
    return 2
  end
end

--- Ports on which nobody listens, one for each name.
local function free_ports(names)
  local probes, ports = {}, {}
  for _, name in ipairs(names) do
    probes[name] = assert(world:listen("127.0.0.1:0", function () end))
    ports[name] = probes[name]:address():match "%d+$"
  end
  for _, name in ipairs(names) do probes[name]:close() end -- Together, so that no port is given twice.
  return ports
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

--- Start a program; it is killed when `stopping` is closed.
local function start(stopping, argv, port)
  local process = assert(world:spawn { argv = argv, group = true, on_exit = function () end })
  stopping[#stopping + 1] = process
  for _ = 1, 400 do
    task.sleep(25)
    local open = task.future "probe"
    local stream = world:connect("127.0.0.1:" .. port, {
      on_open = function (_, err) open:settle(not err) end, on_end = function () end,
    })
    local up = stream and open:await(1000)
    if stream then stream:close() end
    if up then return end
  end
  error(argv[1] .. " did not start")
end

-- Verdicts -------------------------------------------------------------------------------------------------------------

local function values_of(response)
  local out = {}
  for name in pairs(response.headers) do out[name] = response:values(name) end -- order-free: by name
  return out
end

--- Our verdict: { code, why } or { status, headers, body }.
local function ours(client, url, c)
  local o = c.options or {}
  local r, err, code = client:request {
    method = c.method, url = url, headers = c.headers, body = c.body, timeout_ms = c.after == "hang" and 300 or TIMEOUT_MS,
      redirects = o.redirects,
    compressed = o.compressed, max_body_bytes = o.max_body_bytes,
  }
  if not r then return { code = code, why = err } end
  return { status = r.status, headers = values_of(r), body = r.body, redirects = r.redirects or 0 }
end

local function same_headers(a, b, any)
  local names = {}
  for name in pairs(a) do names[name] = true end -- order-free: a set
  for name in pairs(b) do names[name] = true end -- order-free: a set
  for name in pairs(names) do -- order-free: any difference counts
    if name ~= "date" and name ~= any then
      local x, y = table.concat(a[name] or { "(none)" }, "\n"), table.concat(b[name] or { "(none)" }, "\n")
      if x ~= y then return false, ("%s: %q, curl %q"):format(name, x:sub(1, 60), y:sub(1, 60)) end
    end
  end
  return true
end

--- Whether both verdicts agree; if not, how they differ.
local function agree(c, a, b)
  if a.code or b.exit ~= 0 then
    if a.code and b.exit ~= 0 then return true end
    return false, a.code and "curl takes it" or "curl refuses it: " .. b.why
  end
  if a.status ~= b.status then return false, ("status %d, curl %d"):format(a.status, b.status) end
  if c.method ~= "HEAD" and not c.body_any and a.body ~= b.body then return false, ("body of %d bytes, curl %d"):format(#a.body, #b.body) end
  if a.redirects ~= b.redirects then return false, ("%d redirects, curl %d"):format(a.redirects, b.redirects) end
  return same_headers(a.headers, b.headers, c.any)
end

local function shown(v)
  if v.code then return v.code end
  if v.exit and v.exit ~= 0 then return "exit " .. v.exit end
  return ("%d, %d B"):format(v.status, #v.body)
end

-- The run --------------------------------------------------------------------------------------------------------------

local counts = { cases = 0, agree = 0, explained = 0, unexplained = 0, stale = 0, lost = 0 }
local reasons = {}

local function judge(server, name, c, a, b)
  counts.cases = counts.cases + 1
  local same, how = agree(c, a, b)
  local verdict
  if same and c.differs then
    verdict, counts.stale = "AGREES, though a reason is given", counts.stale + 1
  elseif same then
    verdict, counts.agree = "same", counts.agree + 1
  elseif c.differs then
    verdict, counts.explained = "other: " .. c.differs, counts.explained + 1
    reasons[#reasons + 1] = name
  else
    verdict, counts.unexplained = "DIFFERS: " .. how, counts.unexplained + 1
  end
  print(("%-8s %-34s %-20s %-16s %s"):format(server, name, shown(a), shown(b), verdict))
end

local function run_cases(dir, server, base, cases, has_ok)
  local client <close> = http.client(world, { base_url = base })
  for _, c in ipairs(cases) do
    local path = c.path or "/" .. c.name
    local name = c.name or ("%s%s%s%s"):format(c.method and c.method .. " " or "", path:sub(1, 24), c.options and c.options.redirects
      and " ->" or "",
      c.headers and " " .. next(c.headers) or "")
    if (server .. " " .. name):find(only, 1, true) then
      local a
      if c.cookies then
        local own <close> = http.client(world, { base_url = base, cookies = true })
        a = ours(own, path, c)
      else
        a = ours(client, path, c)
      end
      local b = curl.run(dir, base .. path, { method = c.method, headers = c.headers, body = c.body, options = c.options, cookies = c.cookies,
        timeout_s = c.after == "hang" and 0.3 or TIMEOUT_MS / 1000 })
      task.sleep(1) -- curl held the loop, and its clock: the next deadline would be counted from an old time.
      judge(server, name, c, a, b)
      if has_ok and not a.code then -- The connection is usable, or is not used.
        local r, err = client:get "/ok"
        if not r or r.body:sub(1, 2) ~= "ok" then
          counts.lost = counts.lost + 1
          print(("%-8s %-34s the request after it: %s"):format(server, name, err or r.status .. " " .. r.body))
        end
      end
    end
  end
end

local function bar(name, figure, want, ok) print(("bar http_corpus_%s %d want %s %s"):format(name, figure, want, ok and "ok" or "short")) end

local function main()
  local dir = curl.shell "mktemp -d":gsub("%s+$", "")
  local stopping <close> = setmetatable({}, { __close = function (self)
    for _, process in ipairs(self) do process:kill(9) end
    os.execute("rm -rf " .. dir)
  end })
  os.execute(("mkdir -p %s/www/sub && chmod 755 %s %s/www %s/www/sub"):format(dir, dir, dir, dir))
  for path, text in pairs(servers.files()) do write(dir .. "/" .. path, text) end -- order-free: by path
  local ports = free_ports { "raw", "node", "nginx", "apache", "haproxy" }
  start(stopping, { "build/release/bin/shoal", "lua", "spec/bench/http/raw.lua", "serve", "127.0.0.1:" .. ports.raw }, ports.raw)
  for _, name in ipairs { "node", "nginx", "apache", "haproxy" } do
    local server = servers[name]
    write(dir .. "/" .. server.file, (server.config:gsub("DIR", dir):gsub("PORT", ports[name]):gsub("NODE", ports.node)))
    start(stopping, server.argv(dir), ports[name])
  end
  print(curl.shell "curl --version | head -1":gsub("%s+$", ""))
  print(("%-8s %-34s %-20s %-16s %s"):format("server", "case", "shoal", "curl", "verdict"))
  run_cases(dir, "raw", "http://127.0.0.1:" .. ports.raw, raw_cases, true)
  for _, name in ipairs { "nginx", "apache", "haproxy", "node" } do
    run_cases(dir, name, "http://127.0.0.1:" .. ports[name], servers[name].cases, true)
  end
  print(("%d cases: %d the same, %d other for a reason that is given"):format(counts.cases, counts.agree, counts.explained))
  local enough = counts.cases >= CASES_MIN or only ~= ""
  bar("cases", counts.cases, ">= " .. CASES_MIN, enough)
  bar("unexplained", counts.unexplained, "<= 0", counts.unexplained == 0)
  bar("reasons_that_do_not_hold", counts.stale, "<= 0", counts.stale == 0)
  bar("connections_out_of_step", counts.lost, "<= 0", counts.lost == 0)
  return enough and counts.unexplained + counts.stale + counts.lost == 0 and 0 or 1
end

task.start(world)
task.root():spawn("cli.bench", { command = "bench http_corpus" }, function ()
  local errors = require "shoal.errors"
  local ok, code = errors.call("cli.bench", { command = "bench http_corpus" }, main)
  node.exit(ok and code or 1)
end)
