--- bench core: the cores above membership: ns per operation and bytes per entry, the door, and leases between processes.
---
---   scripts/bench core [--only=lease,detector,federation,door,timely,processes] [--quick]
---
--- lease, detector, federation, door: programs without Lua (spec/bench/core_bench.c; one file a part in core_bench/), or a file
--- spec/bench/core/PART.lua beside or instead of it. CPU time, the least of several rounds, at 1 k, 100 k and 1 M entries. "Flat" is the
--- greatest of the three over the least; operations go to entries in random order, so at 1 M they include the misses of the caches.
---
--- --quick: few rounds, to check that all works; its figures mean nothing.
local BUILD = os.getenv "SHOAL_BUILD" or "build/release"
local PARTS = { "lease", "detector", "federation", "door", "timely", "processes" }

local function fail(text)
  io.stderr:write("bench core: ", text, "\n")
  os.exit(2)
end

local only, quick = {}, false
for _, word in ipairs { ... } do
  local list = word:match "^%-%-only=(.+)$"
  if word == "--quick" then quick = true
  elseif list then for part in list:gmatch "[^,]+" do only[#only + 1] = part end
  else fail("unknown option " .. word .. "; see the head of spec/bench/core.lua") end
end
for _, part in ipairs(only) do
  local known = false
  for _, other in ipairs(PARTS) do known = known or other == part end
  if not known then fail(("no part is named %s; there are: %s"):format(part, table.concat(PARTS, ", "))) end
end

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local failed, ran = {}, 0

--- Run one program of a part. 1: a bar is short; anything else is a fault.
local function run(part, command)
  ran = ran + 1
  io.stdout:flush()
  local _, _, status = os.execute(command .. (quick and " quick" or ""))
  if status == 1 then failed[part] = true
  elseif status ~= 0 then fail(("%s: ended with status %s"):format(command, tostring(status))) end
end

for _, part in ipairs(only[1] and only or PARTS) do
  local program, script = ("spec/bench/core_bench/%s.c"):format(part), ("spec/bench/core/%s.lua"):format(part)
  print(("== %s"):format(part))
  if exists(program) then run(part, ("%s/spec/core_bench %s"):format(BUILD, part)) end
  if exists(script) then run(part, ("%s/bin/shoal lua %s"):format(BUILD, script)) end
  if not exists(program) and not exists(script) then print "(not measured in this build)" end
end
os.exit(next(failed) and 1 or 0)
