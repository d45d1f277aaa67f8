--- The rules of the lint, and for each what to do instead. Each rule is a function of a scanned source that calls
--- `found(offset, message)`. How each is proved: spec/lua/lint_spec.lua plants every fault.

local scan = require "shoal.lint.scan"

local rules = {}

local LINES_MAX = 800

--- Offsets of `name` as a whole word in `text`.
local function words(text, name)
  local pattern = "()%f[%w_]" .. name .. "%f[^%w_]()"
  local at = 1
  return function ()
    local from, to = text:match(pattern, at)
    at = to
    return from, to
  end
end

--- Whether the line, or the one before it, has a comment with this mark and some words after it.
local function marked(source, offset, mark)
  local number = scan.line_of(source, offset)
  for n = number, math.max(1, number - 1), -1 do
    local said = scan.line(source, "comments", n):match(mark .. ":%s*(.+)")
    if said and #said > 3 then return true end
  end
  return false
end

local function under(path, ...)
  for _, prefix in ipairs { ... } do
    if path:sub(1, #prefix) == prefix then return true end
  end
  return false
end

-- ---- any file ----

--- A file past 800 lines has a second subject.
function rules.size(source, found)
  if source.lines > LINES_MAX then
    found(1, source.lines .. " lines, more than " .. LINES_MAX .. ": look for the second subject and give it a file")
  end
end

-- ---- Lua ----

local lua = {}
rules.lua = lua

local DOOR = "lua/shoal/base/errors.lua"

--- The protected calls stand in one file.
function lua.door(source, found)
  if source.path == DOOR then return end
  local alone = under(source.path, "spec/bench/") -- A bench resumes, where it measures what libraries do without us.
  for _, name in ipairs { "pcall", "xpcall" } do
    for at, after in words(source.code, name) do
      local defined = source.code:match("^%s*=[^=]", after) -- A sandbox that gives scripts a pcall of its own.
      if not defined then
        found(at, name .. " outside " .. DOOR .. ": use errors.call(site, ids, fn, ...), or errors.handle to take the error")
      end
    end
  end
  for at, after in words(source.code, "coroutine") do
    local member = source.code:match("^%s*%.%s*([%w_]+)", after)
    local before = source.code:sub(math.max(1, at - 1), at - 1)
    if before ~= "." and before ~= ":" then
      if member == "resume" and alone then -- luacheck: ignore 542
      elseif member == "resume" or member == "wrap" or member == "close" then
        found(at, "coroutine." .. member .. " outside " .. DOOR .. ": use scope:spawn, or errors.resume and errors.close")
      elseif not member then
        found(at, "coroutine under another name hides what is resumed: write coroutine.create, coroutine.yield in full")
      end
    end
  end
end

--- Time and chance are the world's.
function lua.world(source, found)
  if under(source.path, "spec/") then return end
  local instead = {
    ["os.time"] = "world:wall_ns()", ["os.clock"] = "world:fresh_ns()", ["os.date"] = "shoal.log.line.wall(wall_ns)",
    ["math.random"] = "world:random()", ["math.randomseed"] = "nothing: the world is seeded",
  }
  for _, name in ipairs { "os.time", "os.clock", "os.date", "math.random", "math.randomseed" } do
    local of, member = name:match "^(.-)%.(.*)$"
    for at, after in words(source.code, of) do
      if source.code:match("^%s*%.%s*([%w_]+)", after) == member then
        found(at, name .. " is outside of the world, and differs in every run: use " .. instead[name])
      end
    end
  end
end

--- The library and the roles ask the world; luv is for what only ever runs for real.
function lua.luv(source, found)
  if not under(source.path, "lua/shoal/", "scripts/roles/", "scripts/policies/") then return end
  if under(source.path, "lua/shoal/cli/", "lua/shoal/node/repl") then return end
  for at in source.uncommented:gmatch "()%f[%w_]require%s*%(?%s*[\"']luv[\"']" do
    found(at, "luv here cannot be simulated: ask the world (shoal.core.world), or move this under lua/shoal/cli/")
  end
end

--- JSON is read and written in one place, where whole numbers stay exact. Specs use another reader on purpose.
function lua.json(source, found)
  if under(source.path, "spec/") then return end
  for at, name in source.uncommented:gmatch "()%f[%w_]require%s*%(?%s*[\"'](c?json[%w_.]*)[\"']" do
    found(at, name .. " rounds whole numbers: use shoal.base.json")
  end
  if under(source.path, "lua/shoal/base/json.lua") then return end
  for at in source.uncommented:gmatch "()%f[%w_]require%s*%(?%s*[\"']shoal%.core%.json[\"']" do
    found(at, "shoal.core.json is the inside of shoal.base.json: use that")
  end
end

--- The library's rooms, lowest first. A room names itself and those before it. `lint` is the project's own and stands on all.
local ROOMS = { "base", "wire", "member", "tier", "job", "run", "node", "sim", "cli", "lint" }
local floor_of = {}
for i, room in ipairs(ROOMS) do floor_of[room] = i end

--- A lower room never names a higher one, and no room uses the short names, which are for people.
function lua.rooms(source, found)
  local room = source.path:match "^lua/shoal/([%w_]+)/"
  local floor = floor_of[room]
  if not floor then return end
  for at, name in source.uncommented:gmatch "()%f[%w_]require%s*%(?%s*[\"']shoal%.([%w_.]+)[\"']" do
    local other = name:match "^([%w_]+)%."
    if not other then
      found(at, "shoal." .. name .. " is a short name, for people: name the room where it lives (shoal.ROOM." .. name .. ")")
    elseif other ~= "core" and not floor_of[other] then
      found(at, "shoal." .. name .. ": there is no room " .. other .. " (" .. table.concat(ROOMS, ", ") .. ")")
    elseif other ~= "core" and floor_of[other] > floor then
      found(at, "lua/shoal/" .. room .. " names lua/shoal/" .. other .. ", which is above it (" .. table.concat(ROOMS, ", ")
        .. "): move what is shared down, or hand it in")
    end
  end
end

--- Whether a loop's shape alone shows that its order decides nothing: on one line it assigns to the entry of its own key
--- (a copy, a sum by key), or it collects keys that the next lines sort.
local function harmless(source, offset)
  local number = scan.line_of(source, offset)
  local line = scan.line(source, "code", number)
  local key, body = line:match "for%s+([%w_]+)%s*,?%s*[%w_]*%s+in%s+[^\n]-%f[%w_]do%f[^%w_]%s*(.-)%s*end"
  if not key or body:find "[%w_%]]%s*%(" then return false end -- What is called may see the order.
  if body:find("^[%a_][%w_.]*%[" .. key .. "%]%s*=[^=;]*$") or body:find("^[%a_][%w_.]*%[[%w_]+%]%[" .. key .. "%]%s*=[^=;]*$") then
    return true
  end
  local list = body:match "^([%a_][%w_.]*)%[#[%w_.]+%s*%+%s*1%]%s*=[^=;]*$"
  if not list then return false end
  local following = scan.line(source, "code", number + 1) .. scan.line(source, "code", number + 2)
  return following:find("table%.sort%s*%(%s*" .. list:gsub("%.", "%%.") .. "%f[^%w_]") ~= nil
end

--- The order of pairs differs in every process.
function lua.order(source, found)
  if not under(source.path, "lua/", "scripts/", "examples/") then return end
  local function check(at, what)
    if not harmless(source, at) and not marked(source, at, "order%-free") then
      found(at, what .. " walks in an order that differs in every process: use `for k, v in sorted(t)` (shoal.sorted), or"
        .. " say on the line `-- order-free: why`")
    end
  end
  for at, after in words(source.code, "pairs") do
    if source.code:match("^%s*%(", after) then check(at, "pairs") end
  end
  for at in source.code:gmatch "%f[%w_]in%s+()next%s*," do check(at, "next") end
end

--- One writer for what the program prints: it reports data that could not be written.
function lua.printing(source, found)
  if not under(source.path, "lua/shoal/") or source.path == "lua/shoal/cli/out.lua" then return end
  local function refuse(at, what)
    found(at, what .. " outside lua/shoal/cli/out.lua: use common.data, which reports what could not be written, or the log")
  end
  for at in source.code:gmatch "()%f[%w_]io%s*%.%s*stdout%f[^%w_]" do refuse(at, "io.stdout") end
  for at in source.code:gmatch "()%f[%w_]io%s*%.%s*write%f[^%w_]" do refuse(at, "io.write") end
  for at in words(source.code, "print") do
    local before = source.code:sub(math.max(1, at - 12), at - 1)
    local called = source.code:match("^print%s*[%({\"']", at)
    if called and not before:find "[.:]$" and not before:find "function%s+$" then refuse(at, "print") end
  end
end

--- Calls whose refusal (`nil, err`) is all one hears of it: as a statement of their own they drop it.
local taken = { await = ":", call = ":", propose = ":", handle = ".", load_policy = ".", put_durable = ":",
  rename = ":", unlink = ":", make_directory = ":" }

function lua.taken(source, found)
  if under(source.path, "spec/") then return end
  -- A statement that is a call begins a line: a name, then a chain of members, methods and calls.
  for number = 1, source.lines do
    local code = scan.line(source, "code", number)
    local chain, how, name = code:match "^%s*([%a_][%w_.%[%]\"']*)([:.])([%a_][%w_]*)%s*[%({\"']"
    if name and taken[name] == how and (how == ":" or chain == "errors") then
      local before = scan.line(source, "code", number - 1):match "(%S*)%s*$"
      local continued = number > 1 and (before:find "[%(,={+%-%*/%%^<>~]$" or before == "and" or before == "or"
        or before == "return" or before == "not" or before:find "%.%.$")
      local offset = source.starts[number] + #code:match "^%s*"
      if not continued and not marked(source, offset, "dropped") then
        found(offset, "the result of " .. chain .. how .. name .. " is dropped, and with it why it was refused: take"
          .. " `nil, err`, or say on the line `-- dropped: why`")
      end
    end
  end
end

--- Sites are spelt as the catalogue has them.
function lua.sites(source, found, sites)
  if under(source.path, "spec/") or not sites then return end
  local text = source.uncommented
  local function check(at, name)
    if not sites.has(name) then found(at, sites.unknown(name)) end
  end
  for _, name in ipairs { "call", "report", "handle", "run", "resume", "close", "deliver", "withdraw" } do
    for at, site in text:gmatch("()errors%." .. name .. "%s*%(?%s*[\"']([^\"'\n]+)[\"']%s*[,)]") do check(at, site) end
  end
  for _, name in ipairs { "spawn", "keep", "loop" } do
    for at, site in text:gmatch("()[:.]" .. name .. "%s*%(%s*[\"']([^\"'\n]+)[\"']%s*,") do check(at, site) end
  end
end

-- ---- C ----

local c = {}
rules.c = c

local floors = { core = 0, world = 1, net = 2, drive = 3, lua = 4, host = 5 }

local function room_of(path) return path:match "^c/([%w_]+)/" end

--- A lower room never names a higher one.
function c.floors(source, found)
  local room = room_of(source.path)
  local floor = floors[room]
  if not floor then return end
  for at, name in source.uncommented:gmatch "()#%s*include%s*\"([^\"\n]+)\"" do
    local other = name:match "^%.*/*([%w_]+)/"
    if other and floors[other] and floors[other] > floor then
      found(at, "c/" .. room .. " names c/" .. other .. ", which is above it (core, world, net, drive, lua, host): move what is"
        .. " shared down, or hand it in")
    end
  end
  for at, name in source.uncommented:gmatch "()#%s*include%s*<([^>\n]+)>" do
    if (name == "uv.h" or name:find "^uv/") and not (source.path:find "^c/world/uv" or room == "host") then
      found(at, "<" .. name .. "> outside c/world/uv* and c/host: this must run in the simulator; use world/world.h")
    elseif name:find "^luv" and room ~= "host" then
      found(at, "<" .. name .. "> outside c/host: this must run in the simulator; use world/world.h")
    elseif (name == "lua.h" or name == "lauxlib.h" or name == "lualib.h") and floor < floors.lua then
      found(at, "<" .. name .. "> below c/lua: the rooms core, world, net and drive know no Lua")
    end
  end
end

--- One file calls Lua protected.
function c.door(source, found)
  if source.path == "c/lua/door.c" or not under(source.path, "c/") then return end
  for _, name in ipairs { "lua_pcall", "lua_pcallk", "lua_resume", "luaL_dostring", "luaL_dofile", "lua_closethread",
    "lua_resetthread" } do
    for at in words(source.code, name) do
      found(at, name .. " outside c/lua/door.c: use door_call(L, site, push, results, take, data)")
    end
  end
end

local forbidden = { "uv_now", "uv_hrtime", "clock_gettime", "gettimeofday", "clock", "time", "rand", "srand", "rand_r", "random",
  "srandom", "drand48", "getrandom", "arc4random", "uv_random" }

--- Time and chance are handed in.
function c.world(source, found)
  local room = room_of(source.path)
  if not floors[room] or room == "world" or room == "host" then return end
  for _, name in ipairs(forbidden) do
    for at, after in words(source.code, name) do
      local before = source.code:sub(math.max(1, at - 24), at - 1)
      local is_call = source.code:match("^%s*%(", after)
      local is_member = before:find "%.%s*$" or before:find "%->%s*$"
      local is_declared = before:find "[%w_]%s+%*?$" and not before:find "return%s+$" and not before:find "else%s+$"
      if is_call and not is_member and not is_declared then
        found(at, name .. "() outside c/world: time is an argument (now_ns), chance is core/rng.h or world_random")
      end
    end
  end
end

--- Nobody asks these how it went.
local printing = { printf = true, fprintf = true, snprintf = true, fputs = true, fputc = true, fflush = true }

--- A result that is dropped says why: beside it, or once for the file in a comment that speaks of "(void)".
function c.taken(source, found)
  if not under(source.path, "c/") or source.comments:find("(void)", 1, true) then return end
  for at, name in source.code:gmatch "()%(void%)%s*([%a_][%w_]*)%s*%(" do
    if printing[name] then goto continue end
    local number = scan.line_of(source, at)
    local here = scan.line(source, "comments", number):find "%a"
    while number > 1 and scan.line(source, "code", number - 1):find("(void)", 1, true) do -- One reason for a row of them.
      number = number - 1
      here = here or scan.line(source, "comments", number):find "%a"
    end
    local before = number > 1 and scan.line(source, "comments", number - 1):find "%a"
    if not here and not before then found(at, "a result dropped with (void) says why beside it, in a comment") end
    ::continue::
  end
end

--- C's sites are in the catalogue too.
function c.sites(source, found, sites)
  if not under(source.path, "c/") or not sites then return end
  for at, site in source.uncommented:gmatch "()door_[%w_]+%s*%([^;\"]-\"([%w_.]+)\"" do
    if site:find(".", 1, true) and not sites.has(site) then found(at, sites.unknown(site)) end
  end
end

return rules
