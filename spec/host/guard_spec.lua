--- `shoal guard`: at the end of its stdin it kills the recorded groups that have not ended, with all descendants, and what bears its mark.
local child = require "spec.support.child"
local uv = require "luv"

local restore
setup(function () restore = child.without_preload() end)
teardown(function () restore() end)

local function record(id, started) return string.pack("<I4I4", id, started and 1 or 0) end

--- A process in a group of its own.
local function sleeper(env)
  local handle, pid = assert(uv.spawn("sleep", { args = { "300" }, detached = true, env = env }, function () end))
  return pid, function ()
    handle:kill "sigkill"
    handle:close()
    uv.run "nowait"
  end
end

--- Run a guard with these pieces as its stdin. Returns its exit status and signal.
local function guard(pieces, word)
  local stdin, ended = uv.new_pipe(), nil
  local handle = assert(uv.spawn(child.PROGRAM, { args = { "guard", word }, stdio = { stdin, nil, 2 }, detached = true }, function (...)
    ended = { ... }
  end))
  for _, piece in ipairs(pieces) do
    stdin:write(piece)
    uv.run "nowait"
    uv.sleep(5)
  end
  local before = ended
  stdin:close()
  while not ended do uv.run "once" end
  handle:close()
  uv.run "nowait"
  assert.is_nil(before)
  return ended[1], ended[2]
end

it("kills what runs, and not what has ended; records may come in any pieces", function ()
  local one, close_one = sleeper()
  local two, close_two = sleeper()
  local three, close_three = sleeper()
  local bytes = record(one, true) .. record(two, true) .. record(two, false) .. record(three, true)
  local pieces = {}
  for at = 1, #bytes, 3 do pieces[#pieces + 1] = bytes:sub(at, at + 2) end
  assert.equal(0, (guard(pieces)))
  assert(child.gone(one) and child.gone(three))
  assert.is_true(child.alive(two))
  close_one()
  close_two()
  close_three()
end)

it("kills descendants in any group or session, before it kills the group", function ()
  local out, text = uv.new_pipe(), ""
  local handle, pid = assert(uv.spawn("sh", {
    args = { "-c", "setsid sleep 300 & echo $!; setsid sh -c 'setsid sleep 300 & echo $!; wait' & wait" },
    detached = true, stdio = { nil, out },
  }, function () end))
  out:read_start(function (_, bytes) text = text .. (bytes or "") end)
  while select(2, text:gsub("\n", "")) < 2 do uv.run "once" end
  assert.equal(0, (guard { record(pid, true) }))
  assert(child.gone(pid))
  for each in text:gmatch "%d+" do assert(child.gone(each)) end
  out:close()
  handle:close()
  uv.run "nowait"
end)

it("kills what bears its own mark, though it is nobody's descendant, and no other's", function ()
  local mine, close_mine = sleeper { "PATH=" .. os.getenv "PATH", "SHOAL_GUARD=0123456789abcdef" }
  local other, close_other = sleeper { "SHOAL_GUARD=0123456789abcdee", "PATH=" .. os.getenv "PATH" }
  local like, close_like = sleeper { "NOT_SHOAL_GUARD=0123456789abcdef", "PATH=" .. os.getenv "PATH" }
  assert.equal(0, (guard({}, "0123456789abcdef")))
  assert(child.gone(mine))
  assert.is_true(child.alive(other) and child.alive(like))
  close_mine()
  close_other()
  close_like()
end)

it("knows more groups than it began with room for", function ()
  local pid, close = sleeper()
  local pieces = { record(pid, true) }
  for id = 1, 300 do pieces[#pieces + 1] = record(0x7fff0000 + id, true) end -- Above the greatest process id there is.
  assert.equal(0, (guard { table.concat(pieces) }))
  assert(child.gone(pid))
  close()
end)

it("never takes for a group what is none: its own, or a process's number turned round", function ()
  local pid, close = sleeper() -- 1 is not tried: if it were taken, it would kill every process of this machine.
  assert.same({ 0, 0 }, { guard { record(0, true), record(0x100000000 - pid, true) } })
  assert.is_true(child.alive(pid))
  close()
end)

it("does not end by the signals that end its worker", function ()
  local stdin, ended = uv.new_pipe(), nil
  local handle, pid = assert(uv.spawn(child.PROGRAM, { args = { "guard" }, stdio = { stdin } }, function (...) ended = { ... } end))
  local ready
  repeat -- Until it ignores them.
    local file = assert(io.open("/proc/" .. pid .. "/status"))
    ready = tonumber(file:read("a"):match "SigIgn:%s*(%x+)", 16)
    file:close()
    uv.sleep(1)
  until ready & (1 << 14) ~= 0 and ready & (1 << 12) ~= 0
  for _, name in ipairs { "sigterm", "sigint", "sighup", "sigquit" } do handle:kill(name) end
  uv.sleep(20)
  uv.run "nowait"
  assert.is_nil(ended)
  stdin:close()
  while not ended do uv.run "once" end
  assert.same({ 0, 0 }, ended)
  handle:close()
  uv.run "nowait"
end)
