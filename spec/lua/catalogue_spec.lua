--- F69: the whole catalogue of sites. Every site, through every entry of the door, with every kind of failure (the program
--- spec/binding/sites.c runs spec/support/site_cases.lua); and no site without a place in c/, lua/ or scripts/ that can raise there.
local scan = require "shoal.lint.scan"
local sites = require "shoal.base.sites"

local build = os.getenv "SHOAL_BUILD" or "build/release"

local function run(words)
  local pipe = assert(io.popen(build .. "/spec/sites spec/support/site_cases.lua " .. words .. " 2>/dev/null"))
  local output = pipe:read "a"
  return pipe:close(), output
end

describe("the catalogue of sites:", function ()
  it("F69, L4: each site at each entry, with each kind of failure: one accounted incident, siblings run, the loop lives", function ()
    local ok, output = run ""
    assert(ok, output)
    local entries = 0
    for _ in output:gmatch "ok [^\n]+" do entries = entries + 1 end
    assert.equal(13, entries)
    local walked, cases = output:match "(%d+) sites, (%d+) cases"
    assert.equal(#sites, tonumber(walked))
    assert.is_true(tonumber(cases) > 60 * #sites)
  end)

  it("F69: telling that runs out of memory at any of its allocations is counted, and gets out to nobody", function ()
    local ok, output = run "starved"
    assert(ok, output)
    assert.truthy(output:find "ok telling without memory")
  end)
end)

-- Where a site can be raised ---------------------------------------------------------------------------------------------

--- Functions of the door that take a site first, and those of C that take it somewhere.
local LUA_DOOR = {
  "errors%.call", "errors%.run", "errors%.report", "errors%.handle", "errors%.resume", "errors%.close", "errors%.deliver",
  "errors%.deliver_part", "errors%.run_hook", "[:.]spawn", "[:.]keep", "[:.]loop", "[:.]fire", "[:.]deliver", "fail_at", "means%.fail", "fail",
}
local C_DOOR = { "door_call", "door_call_stacked", "door_report", "lua_event_fire", "net_fire" }

local function sources()
  local list, out = io.popen "find c lua scripts -type f \\( -name '*.lua' -o -name '*.[ch]' \\) | LC_ALL=C sort", {}
  for path in list:lines() do
    if path ~= "lua/shoal/base/sites.lua" and not path:find "^lua/shoal/lint/" then
      local file = assert(io.open(path, "rb"))
      local text = file:read "a"
      file:close()
      out[#out + 1] = (path:find "%.lua$" and scan.lua or scan.c)(path, text)
    end
  end
  list:close()
  return out
end

--- Whether the code that ends in `before` is the head of a call of the door, with the site as what comes next: "direct". A name that
--- stands in a table or a variable is "kept": its file, or another, hands it to the door by that name.
local function use_of(source, before, after)
  if source.path:find "%.[ch]$" then
    for _, name in ipairs(C_DOOR) do
      if before:find("%f[%w_]" .. name .. "%s*%([^;{}]*$") then return "direct" end
    end
    if before:find "[{,]%s*$" or before:find "[?:]%s*$" then return "kept" end -- A list of sites, one for each event.
    return nil
  end
  for _, name in ipairs(LUA_DOOR) do
    if before:find(name .. "%s*%(%s*$") then return "direct" end
  end
  if before:find "data_file%.bounded%s*%(%s*[%w_]+,%s*$" then return "direct" end
  if before:find "records%[%s*$" or before:find "errors%.policy%s*%(%s*$" then return "direct" end
  if before:find "errors%.call%s*%([^()\n]* or%s*$" then return "direct" end           -- errors.call(a and "x" or "y", ...)
  if before:find "[%w_]%s*=%s*$" or before:find "%.%.%s*$" or before:find "%f[%w_]or%s*$" or before:find "%f[%w_]and%s*$"
    or before:find "%f[%w_]return%s*$" or before:find "[{(,]%s*$" and after:find "^%s*[,})]" then return "kept" end
  return nil
end

--- The site that a quoted string can be part of: its name, its end behind `owner ..`, a member of its family, a policy's name.
local function names(site, text, before, declared)
  if text == site.name then return true end
  if text:sub(1, 1) == "." and before:find "%.%.%s*$" and site.name:sub(-#text) == text then return true end
  local family = site.name:match "^(.*%.)%*$"
  if family and text:sub(1, #family) == family and not declared[text] then return true end
  return before:find "errors%.policy%s*%(%s*$" ~= nil and not declared["policy." .. text] and site.name == "policy.*"
end

--- Each site's places: "path:line", how.
local function places()
  local declared, found = {}, {}
  for _, site in ipairs(sites) do declared[site.name], found[site.name] = true, {} end
  for _, source in ipairs(sources()) do
    local code, at = source.code, 1
    while true do
      local from, _, quote = code:find("([\"'])", at)
      local to = from and code:find(quote, from + 1, true)
      if not to then break end
      local text = source.uncommented:sub(from + 1, to - 1)
      if text:find "^[%w_]*%.?[%w_.]+$" then
        local before, after = code:sub(math.max(1, from - 160), from - 1), code:sub(to + 1, to + 40)
        for _, site in ipairs(sites) do
          if names(site, text, before, declared) then
            local how = use_of(source, before, after)
            local fires = before:find "[:.]fire%s*%(%s*$" or before:find "[:.]deliver%s*%(%s*$" or before:find "%f[%w_]site%s*=%s*$"
            local family = site.name:find "%*$" and how == "kept" and not before:find "callback%s*=%s*$" and source.path:find "%.lua$"
            if how and not family and (not site.hook or fires or how == "direct" or source.path:find "job/telling") then
              table.insert(found[site.name], ("%s:%d"):format(source.path, scan.line_of(source, from)))
            end
          end
        end
      end
      at = to + 1
    end
  end
  return found
end

describe("a site of the catalogue", function ()
  --- Sites that nothing can raise: there are none, and there is no reason for one.
  local EXCEPTIONS = {}

  it("F69: can be raised by something in c/, lua/ or scripts/", function ()
    local found, idle = places(), {}
    for _, site in ipairs(sites) do
      if #found[site.name] == 0 and not EXCEPTIONS[site.name] and not site.name:find "^spec%." then idle[#idle + 1] = site.name end
    end
    assert.same({}, idle)
  end)
end)
