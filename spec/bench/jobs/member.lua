--- A member and nothing else, in stock lua5.4: the baseline of a worker at rest in `scripts/bench jobs`.
---
---   lua5.4 spec/bench/jobs/member.lua NAME SEED     joins the group of datacenter "a" of the cluster "shoal", as nodes do
local msgpack = require "shoal.core.msgpack"
local swim = require "shoal.swim"
local uv = require "luv"
local world = require("shoal.core.world").current()

local name, seed = ...

-- The payload is as long as a node's. Its role is none that gets work.
assert(swim.open(world, {
  node = name, bind = "127.0.0.1:0", seeds = { seed }, cluster = "shoal/a", profile = "local",
  payload = msgpack.pack { role = "member", dc = "a", cores = 4 },
}, function () end))
io.stdout:write "ready\n"
io.stdout:flush()
uv.run()
