--- Runs before every spec: sets the paths, and checks the version of Lua.
-- SHOAL_BUILD names the build to test; default build/release.
assert(_VERSION == "Lua 5.4", "specs run on lua5.4, not " .. _VERSION .. "; run busted from the project's root")
local build = os.getenv "SHOAL_BUILD" or "build/release"
package.path = "lua/?.lua;lua/?/init.lua;./?.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath
-- busted gives every file its own package.loaded, and loading luv twice in one state ends the loop under our world. Modules that are
-- loaded here stay: one luv, one world.
if package.searchpath("luv", package.cpath) then require "luv" end

-- An error in a callback of luv, or of the world without a listener, ends the spec that ran the loop: the first error is kept, the loop
-- stops, and uv.run raises it again unchanged. Specs without the compiled module have no such callbacks.
if package.searchpath("shoal", package.cpath) then
  local uv = require "luv"
  local door = require "shoal.core.door"
  require("shoal.core.luv").adopt()
  local run, set_sink, caught = uv.run, door.sink, nil

  local function keep(site, err)
    caught = caught or { site = site, err = err }
    uv.stop()
  end
  --- As before, but errors of luv's own callbacks go to the spec: a spec that expects one listens with `door.sink(fn, true)`.
  function door.sink(fn, all)
    set_sink(function (site, err, traceback)
      if fn and (all or site ~= "luv.callback") then fn(site, err, traceback) else keep(site, err) end
    end)
  end
  function uv.run(...)
    local more = run(...)
    if caught then
      local err = caught.err
      caught = nil
      error(err, 0)
    end
    return more
  end
  -- A file's modules end with it; the sink that they set must not outlive them.
  local busted = package.loaded.busted
  if busted and busted.subscribe then -- Not in the plain lua5.4 of a spec's child.
    busted.subscribe({ "file", "start" }, function ()
      door.sink(nil)
      return nil, true -- Other listeners still run.
    end)
  end
end
return true
