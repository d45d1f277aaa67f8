--- Plant a fault in the code, or remove one of its rules, and check that a spec fails.
--
-- `scripts/study mutants [--room=ROOM] [--only=WORD] [--list] [--keep]`; a room is c/ROOM or lua/shoal/ROOM. The rows stand in mutants/,
-- a file a subject. Each mutant is a file of c/core, or of another room by its path, a text that stands there once, and what takes its
-- place; then the programs that must notice, quickest first. All is built in a temporary folder: the unchanged objects once, then for
-- each mutant the changed file and a link. A file of lua/ is changed in a copy of the tree, and its killers are spec files, with a filter
-- of titles if one is given; so are those of c/host, c/lua and others that specs of Lua kill, for which the copy is built whole. One that
-- no longer applies, does not compile or survives is a failure: move it along with the code, or write the spec that is missing.
--
-- Mutants cannot test cost: an O(N) scan at each gossip pick changes no behaviour. --cost=1 instead counts a member's instructions for a
-- crash at N = 1,000 and 10,000; it needs valgrind and takes ten minutes. The time until a death and the copies of a rumour grow with the
-- logarithm of N, so the instructions less than double. A scan would make them about ten times as many.

local mutants = {}
for _, subject in ipairs {
  "core", "detector", "net", "world", "host", "base", "member", "run", "job", "tier", "lease", "federation", "findings",
  "correlation",
} do
  for _, m in ipairs(dofile("spec/study/mutants/" .. subject .. ".lua")) do mutants[#mutants + 1] = m end
end

---- The workshop: a folder with its own copy of the sources, and objects of them.

--- The room of a mutant: the folder of c/ or lua/shoal/ that its file is in.
local function room_of(m)
  return m.file:match "^lua/shoal/([^/]+)/" or m.file:find "/" and m.file:match "^[^/]+" or "core"
end

local only, room, list, keep, cost
for _, a in ipairs(arg) do
  only, room = a:match "^%-%-only=(.+)$" or only, a:match "^%-%-room=(.+)$" or room
  list, keep, cost = list or a == "--list", keep or a == "--keep", cost or a == "--cost=1"
  if not (a:match "^%-%-only=." or a:match "^%-%-room=." or a == "--list" or a == "--keep" or a == "--cost=1") then
    io.stderr:write("mutants: unknown option ", a, "; there are --room=ROOM, --only=WORD, --list, --keep, --cost=1\n")
    os.exit(2)
  end
end

local function run(command) -- A mutant may allocate without end.
  local pipe = assert(io.popen("ulimit -v 8000000; " .. command .. " 2>&1"))
  local output = pipe:read "a"
  local ok, _, status = pipe:close()
  return ok, output, status
end
local function must_run(command)
  local ok, output = run(command)
  if not ok then error("mutants: " .. command .. "\n" .. output, 0) end
  return output
end
local function read(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "a"
  f:close()
  return text
end
local function write(path, text)
  local f = assert(io.open(path, "wb"))
  assert(f:write(text))
  assert(f:close())
end

local shop = must_run("mktemp -d"):gsub("%s+$", "")
local flags = "gcc -std=gnu11 -O1 -D_GNU_SOURCE -w -I" .. shop .. "/c -c "
local objects, built = {}, {} -- by source; programs that have their own object
local sound_ones = {} -- true, or the problem, by killer

local function compile(source, object) return run(flags .. source .. " -o " .. object) end

local function prepare()
  must_run("cp -r c spec lua scripts examples .busted " .. shop)
end

--- The objects of all rooms of C without Lua, for the first program that is linked.
local function make_objects()
  local sources = must_run("cd " .. shop .. " && ls c/core/*.c c/world/*.c c/net/*.c c/drive/*.c")
  local commands = {}
  for source in sources:gmatch "%S+" do
    objects[source] = shop .. "/" .. source:gsub("/", "_"):gsub("%.c$", ".o")
    commands[#commands + 1] = ("%s%s/%s -o %s"):format(flags, shop, source, objects[source])
  end
  write(shop .. "/commands", table.concat(commands, "\n") .. "\n")
  must_run("xargs -P2 -I{} sh -c '{}' <" .. shop .. "/commands")
end

--- The objects of a program's own parts, spec/c/PROGRAM/*.c.
local function parts_of(program, where)
  local out = {}
  local folder = ("%s/spec/%s/%s"):format(shop, where, program)
  for part in must_run(("find %s/spec/%s -path '%s/*.c'"):format(shop, where, folder)):gmatch "%S+" do
    out[#out + 1] = part:gsub("%.c$", ".o")
    must_run(("%s-I%s/spec/%s %s -o %s"):format(flags, shop, where, part, out[#out]))
  end
  return table.concat(out, " ")
end

--- The program's own object, once; then a link with this object in place of the one of `source`.
local function link(program, source, object)
  if not next(objects) then make_objects() end
  if not built[program] then
    built[program] = shop .. "/" .. program .. ".o"
    local where = program:find "_study$" and "study" or "c"
    must_run(("%s-I%s/spec/%s %s/spec/%s/%s.c -o %s"):format(flags, shop, where, shop, where, program, built[program]))
    built[program] = built[program] .. " " .. parts_of(program, where)
  end
  local all = { built[program] }
  for known, its in pairs(objects) do all[#all + 1] = known == source and object or its end
  table.sort(all)
  local path = shop .. "/" .. program
  must_run("gcc -o " .. path .. " " .. table.concat(all, " ") .. " -luv -lm")
  return path
end

--- Run a killer of Lua in the copy of the tree, which is the home of the nodes that it starts, simulated ones too.
local root = must_run("pwd"):gsub("%s+$", "")
local function run_spec(killer, build)
  local filter = killer[2] and "--filter='" .. killer[2]:gsub("%W", ".") .. "' " or "" -- busted re-executes itself, and loses quotes.
  return run(("cd %s && SHOAL_HOME=%s SHOAL_BUILD=%s/build/release timeout 120 busted %s%s"):format(shop, shop, build or root, filter,
    killer[1]))
end

local function try_lua(m, mutated)
  local good, problem = load(mutated, "@" .. m.file, "t", {})
  if not good then return nil, "does not compile: " .. problem end
  local path = shop .. "/" .. m.file
  local sound_text = read(path)
  write(path, mutated)
  local killed
  for _, killer in ipairs(m.killers) do
    if not killed and not run_spec(killer) then killed = killer[1] end
  end
  write(path, sound_text)
  return killed, "survived"
end

--- A file of c/host or c/lua: the program is built with it, in the copy of the tree.
local built_whole
local function try_program(m, source, mutated)
  local path, sound_text = shop .. "/" .. source, read(source)
  local build = ("nice cmake --build %s/build/release --target shoal shoal_module"):format(shop)
  if not built_whole then
    must_run(("cp CMakeLists.txt CMakePresets.json %s && cd %s && cmake --preset release && %s -j2"):format(shop, shop, build))
    built_whole = true
  end
  write(path, mutated)
  local ok, output = run(build)
  local killed
  for _, killer in ipairs(ok and m.killers or {}) do
    if not killed and not run_spec(killer, shop) then killed = table.concat(killer, " ") end
  end
  write(path, sound_text)
  return killed, ok and "survived" or "does not compile: " .. output
end

--- Run a mutant. Returns the killer's name, or nil and the reason.
local function try(m)
  local of_lua = m.file:find "%.lua$"
  local source = of_lua and m.file or m.file:find "/" and "c/" .. m.file or "c/core/" .. m.file
  local text = read(source)
  local from, to = text:find(m.find, 1, true)
  if not from then return nil, "no longer applies: its text is not in " .. source end
  if text:find(m.find, to + 1, true) then return nil, "its text stands more than once in " .. source end
  if of_lua then return try_lua(m, text:sub(1, from - 1) .. m.put .. text:sub(to + 1)) end
  if m.file:find "^host/" or m.file:find "^lua/" or m.killers[1][1]:find "_spec%.lua$" then
    return try_program(m, source, text:sub(1, from - 1) .. m.put .. text:sub(to + 1))
  end
  local mutated, object = shop .. "/c/core/mutated.c", shop .. "/mutated.o"
  write(mutated, text:sub(1, from - 1) .. m.put .. text:sub(to + 1))
  local ok, output = compile(mutated, object)
  if not ok then return nil, "does not compile: " .. output end
  for _, killer in ipairs(m.killers) do
    local command = "timeout 120 " .. link(killer[1], source, object) .. " " .. table.concat(killer, " ", 2)
    local held, said = run(command)
    local ran = killer[1]:find "_study$" or #killer < 2 or said:find "ok " or not held -- A filter without a behaviour must not count as a kill.
    if not ran then return nil, killer[1] .. " has no " .. killer[2] end
    if not held then return table.concat(killer, " ") end
  end
  return nil, "survived"
end

--- Check that the unchanged code passes the killers.
local function sound(killers)
  for _, killer in ipairs(killers) do
    local key = table.concat(killer, " ")
    if sound_ones[key] == nil then
      local of_lua = killer[1]:find "_spec%.lua$"
      local held, said
      if of_lua then held, said = run_spec(killer)
      else held, said = run("timeout 300 " .. link(killer[1]) .. " " .. table.concat(killer, " ", 2)) end
      local none = of_lua and held and not said:find "[1-9]%d* success"
        or not of_lua and not killer[1]:find "_study$" and not said:find "ok "
      sound_ones[key] = none and "has no such behaviour" or not held and "fails without a mutant:\n" .. said or true
    end
    if sound_ones[key] ~= true then return nil, key .. " " .. sound_ones[key] end
  end
  return true
end

local chosen, names = {}, {}
for _, m in ipairs(mutants) do
  if names[m.name] then error("mutants: two rows are named " .. m.name) end
  names[m.name] = true
  if (not only or m.name:find(only, 1, true)) and (not room or room_of(m) == room) then chosen[#chosen + 1] = m end
end

local short, in_lua_or_net = 0, 0
if list then
  for _, m in ipairs(chosen) do print(m.name, m.file) end
  os.exit(0)
end
prepare()
for _, m in ipairs(chosen) do
  local killer, why = sound(m.killers)
  if killer then killer, why = try(m) end
  if not killer then short = short + 1 end
  if m.file:find "^lua/" or m.file:find "^net/" then in_lua_or_net = in_lua_or_net + 1 end
  print(("bar mutant_%s %d want <= 0 %s  %s"):format(m.name, killer and 0 or 1, killer and "ok" or "short",
    killer and "killed by " .. killer or why))
  io.stdout:flush()
end
print(("%d mutants, %d of them in lua/ and c/net; %d killed, %d short"):format(#chosen, in_lua_or_net, #chosen - short, short))
if cost then
  local function instructions(members, crashes)
    local _, output = run(("valgrind --tool=callgrind --callgrind-out-file=/dev/null %s --n=%d --seeds=1 --crashes=%d")
      :format(link "crash_study", members, crashes))
    return tonumber(output:match "Collected : (%d+)") or error("mutants: valgrind counted nothing: " .. output, 0)
  end
  local function of_a_crash(members) return (instructions(members, 3) - instructions(members, 1)) / 2 / members end
  local small, large = of_a_crash(1000), of_a_crash(10000)
  print(("instructions a member and crash: %.0f at 1,000, %.0f at 10,000"):format(small, large))
  local ok = large / small <= 2
  if not ok then short = short + 1 end
  print(("bar mutants_cost_growth %.2f want <= 2 %s"):format(large / small, ok and "ok" or "short"))
end
if keep then print("kept in " .. shop) else must_run("rm -rf " .. shop) end
os.exit(short == 0 and 0 or 1)
