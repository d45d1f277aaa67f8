--- Print the evidence for a member's death, from a live member, and then again from its recording.
---
---     lua5.4 examples/evidence.lua      from the project's root; SHOAL_BUILD names another build than build/release
local build = os.getenv "SHOAL_BUILD" or "build/release"
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath

local luv = require "luv"
local swim = require "shoal.swim"
local world = require "shoal.core.world".current()

local path = os.tmpname()
os.remove(path) -- only the name is needed

local function open(name, seeds, on_event, record)
  local self, err = swim.open(world, { node = name, bind = "127.0.0.1:0", profile = "local", seeds = seeds, record = record }, on_event)
  if not self then error(err) end
  return self
end

local bob, ada
ada = open("ada", {}, function (event)
  if event.kind == "join" then bob:close() end -- without leaving
  if event.kind == "suspect" then print "ada, while she suspects bob:\n" print(swim.explain(ada:why "bob")) end
  if event.kind == "dead" then ada:close() end
end, path)
bob = open("bob", { ada:address() }, function () end)
luv.run()

local replayed, err = swim.replay(world, path, { why = { "bob" } })
if not replayed then error(err) end
print(("\nher recording: %d inputs in %d ms, %s; at its end:\n"):format(replayed.steps, replayed.ms,
  replayed.same and "replayed to the same decisions" or "replayed to OTHER decisions"))
print(swim.explain(replayed.why.bob))
os.remove(path)
