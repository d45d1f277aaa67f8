--- Run before every spec: the paths, and the Lua that the project is written for.
-- SHOAL_BUILD names the build to test; build/release unless told.
assert(_VERSION == "Lua 5.4", "specs run on lua5.4, not " .. _VERSION .. "; run busted from the project's root")
local build = os.getenv "SHOAL_BUILD" or "build/release"
package.path = "lua/?.lua;lua/?/init.lua;./?.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath
-- busted gives every file its own package.loaded, and luv read twice in one state ends the loop that our world stands on.
-- What is loaded here stays: one luv, one world.
if package.searchpath("luv", package.cpath) then require "luv" end
return true
