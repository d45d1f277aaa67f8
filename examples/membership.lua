--- Three members in one process, on loopback, printing their events. One leaves; one is closed without leaving and is found dead.
---
---     lua5.4 examples/membership.lua      from the project's root; SHOAL_BUILD names another build than build/release
local build = os.getenv "SHOAL_BUILD" or "build/release"
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath

local luv = require "luv"
local swim = require "shoal.swim"
local world = require "shoal.core.world".current()

local began_ns = world:now_ns()
local function say(who, ...)
  print(("%5.2f s  %-7s"):format((world:now_ns() - began_ns) / 1e9, who), table.concat({ ... }, " "))
end

local members = {}
local steps = {} -- actions, half a second after ada has seen an event

local function later(ms, fn)
  local timer
  timer = world:timer(function ()
    timer:close()
    fn()
  end)
  timer:start(ms)
end

local function start(name, seeds)
  local self, err = swim.open(world, {
    node = name, bind = "127.0.0.1:0", cluster = "example", profile = "local", payload = "I am " .. name, seeds = seeds,
  }, function (event)
    local member = event.member
    say(name, "sees", member.name, event.kind, ("(version %d, %q)"):format(member.incarnation.version, member.payload or "?"))
    local step = name == "ada" and steps[event.kind .. " " .. member.name]
    if step then later(500, step) end
  end)
  if not self then error(err) end
  members[name] = self
  say(name, "listens on", self:address())
  return self
end

local function table_of(name)
  local words = {}
  for _, member in ipairs(members[name]:members()) do words[#words + 1] = member.name .. " " .. member.state end
  return table.concat(words, ", ")
end

--- Grace leaves as soon as ada knows her; then bob's socket is closed without an announcement.
steps["join grace"] = function ()
  members.grace:payload "I am grace, and I am leaving"
  assert(members.grace:leave(function (heard)
    say("grace", "left;", heard, "heard it")
    members.grace:close()
  end))
end
steps["left grace"] = function ()
  say("bob", "is closed without leaving")
  members.bob:close()
end
steps["dead bob"] = function ()
  say("ada", "believes:", table_of "ada")
  members.ada:close()
end

local ada = start "ada"
start("bob", { ada:address() })
start("grace", { ada:address() })
luv.run()
print "done"
