--- door_time: ns of one door_call without an error, the least of ROUNDS rounds of COUNT; run by build/.../spec/sites.
local door = door -- luacheck: globals door
local rounds, count, best = tonumber(arg[1]), tonumber(arg[2]), math.huge
for _ = 1, rounds do best = math.min(best, door.time("world.timer", function () end, count)) end
print(best)
