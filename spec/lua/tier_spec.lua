--- A tier of one over a disk that the spec controls: acknowledged commands survive, and others are never acknowledged.
local disk = require "spec.support.disk"
local errors = require "shoal.errors"
local log = require "shoal.log"
local record = require "shoal.tier.record"
local task = require "shoal.task"
local tier = require "shoal.tier"

local LOG, SNAPSHOT = "d/log", "d/snapshot"

describe("tier", function ()
  local world, scope, opened

  --- A state machine that records all its commands, and the tier over it.
  local function machine(options)
    local self = { applied = {}, events = {}, restored = nil }
    local given = {
      name = "managers", directory = "d",
      apply = function (index, command)
        if self.on_apply then self.on_apply(index, command) end
        self.applied[#self.applied + 1] = { index, command }
      end,
      snapshot = function ()
        local lines = {}
        for i, entry in ipairs(self.applied) do lines[i] = entry[1] .. "=" .. entry[2] end
        return table.concat(lines, ";")
      end,
      restore = function (bytes)
        self.restored = bytes
        for index, command in bytes:gmatch "(%d+)=([^;]*)" do
          self.applied[#self.applied + 1] = { math.tointeger(index), command }
        end
      end,
      on_lead = function (index) self.events[#self.events + 1] = "lead " .. index end,
      on_lose = function (index) self.events[#self.events + 1] = "lose " .. index end,
    }
    for key, value in pairs(options or {}) do given[key] = value end
    local err, code
    self.tier, err, code = tier.open({ world = world, name = "m1" }, given)
    if self.tier then opened[#opened + 1] = self.tier end
    return self, err, code
  end

  --- A machine that leads.
  local function leading(options)
    local m = machine(options)
    world:settle()
    assert.is_true(m.tier:leads())
    return m
  end

  --- Propose in a task; the returned table gets the result.
  local function propose(m, command, timeout_ms)
    local result = {}
    scope:spawn("spec.run", { task = "propose" }, function ()
      result.index, result.err, result.code = m.tier:propose(command, timeout_ms or 1000)
      result.done = true
    end)
    task.flush()
    return result
  end

  local function commands(m)
    local list = {}
    for i, entry in ipairs(m.applied) do list[i] = entry[2] end
    return list
  end

  local function told()
    local list = {}
    for i, incident in ipairs(errors.incidents()) do list[i] = incident.site end
    return list
  end

  local function begin(files)
    task.reset()
    world = files
    errors.start(world, "m1")
    task.start(world)
    scope, opened = task.scope "spec", {}
  end

  before_each(function ()
    errors.reset()
    log.open(nil, function () end)
    begin(disk.new())
  end)

  after_each(function ()
    for _, one in ipairs(opened) do one:close() end
    task.stop()
    assert.is_true(errors.balance())
  end)

  it("leads once its leadership is on disk, and not before", function ()
    local m = machine()
    assert.is_false(m.tier:leads())
    assert.is_nil(m.tier:leader())
    assert.equal("NOT_LEADER", propose(m, "early").code)
    world:settle()
    assert.is_true(m.tier:leads())
    assert.equal("m1", m.tier:leader())
    assert.same({ "lead 1" }, m.events)
  end)

  it("acknowledges and applies only what was synced, in order", function ()
    local m = leading()
    local first, second = propose(m, "a"), propose(m, "b")
    assert.is_nil(first.done)
    assert.same({}, m.applied)
    world:last_log():complete()
    assert.same({ 2, nil }, { first.index, second.index })
    assert.same({ { 2, "a" } }, m.applied)
    world:last_log():complete()
    assert.equal(3, second.index)
    assert.same({ { 2, "a" }, { 3, "b" } }, m.applied)
  end)

  it("shares one sync among those who come while one runs", function ()
    local m = leading()
    local before = world:last_log().syncs
    local results = {}
    for i = 1, 100 do results[i] = propose(m, "c" .. i) end
    world:settle()
    for i = 1, 100 do assert.equal(i + 1, results[i].index) end
    assert.equal(2, world:last_log().syncs - before)
  end)

  it("says UNKNOWN when the time is over, and applies it all the same", function ()
    local m = leading()
    local result = propose(m, "slow", 50)
    world:advance(49)
    assert.is_nil(result.done)
    world:advance(1)
    assert.equal("UNKNOWN", result.code)
    assert.equal("tier managers: not committed within 50 ms: it may still apply", result.err)
    world:settle()
    assert.same({ "slow" }, commands(m))
    assert.same({}, told())
  end)

  it("says FULL at its limit of commands, and takes one more when one is done", function ()
    local m = leading { outstanding_max = 3 }
    for i = 1, 3 do assert.is_nil(propose(m, "c" .. i).done) end
    assert.equal("FULL", propose(m, "c4").code)
    world:last_log():complete()
    assert.is_nil(propose(m, "c5").done)
    world:settle()
    assert.same({ "c1", "c2", "c3", "c5" }, commands(m))
  end)

  it("says FULL at its limit of bytes, though one large command always has room", function ()
    local m = leading { outstanding_bytes_max = 1024 }
    assert.is_nil(propose(m, ("x"):rep(5000)).done)
    assert.equal("FULL", propose(m, "y").code)
  end)

  it("refuses a command above its limit, and takes one at it", function ()
    local m = leading { command_max = 10 }
    assert.is_nil(propose(m, ("x"):rep(10)).done)
    assert.equal("TOO_LARGE", propose(m, ("x"):rep(11)).code)
  end)

  it("raises on what is no command, and refuses what is no configuration", function ()
    local m = leading()
    assert.error_matches(function () m.tier:propose({}, 1) end, "a command is a string of bytes, found table")
    assert.error_matches(function () m.tier:propose("x") end, "needs the timeout")
    local _, err, code = machine { rotate_bytes = 5, aply = print }
    assert.same({ 'tier: aply: unknown option, did you mean "apply"?; rotate_bytes: 5 is below 1024', "CONFIG" },
      { err, code })
  end)

  describe("F72: after a crash", function ()
    it("has all that was acknowledged, and greater fences", function ()
      local m = leading()
      local results = {}
      for i = 1, 20 do results[i] = propose(m, "c" .. i) end
      world:settle()
      local unsynced = propose(m, "never synced")
      begin(world:crash())
      assert.is_nil(unsynced.index)
      local again = leading()
      assert.equal(20, #again.applied)
      for i = 1, 20 do assert.same({ results[i].index, "c" .. i }, again.applied[i]) end
      assert.same({ "lead 22" }, again.events)
      local result = propose(again, "new")
      world:settle()
      assert.equal(23, result.index)
    end)

    it("cuts a tail torn at any byte, and goes on", function ()
      local m = leading()
      propose(m, "kept")
      world:settle()
      propose(m, "torn")
      local size = #world.files[LOG].bytes - world.files[LOG].synced
      local left, lines = world, {}
      log.open(nil, function (line) lines[#lines + 1] = line end)
      local function cuts()
        local count = 0
        for _, line in ipairs(lines) do
          if line:find('"tier.cut"', 1, true) and line:find('"path":"d/log"', 1, true) then count = count + 1 end
        end
        return count
      end
      for keep = 0, size do
        begin(left:crash(keep))
        local again = leading()
        assert.same(keep == size and { "kept", "torn" } or { "kept" }, commands(again))
        local result = propose(again, "after")
        world:settle()
        assert.equal(again.applied[#again.applied][1], result.index)
        begin(world:crash()) -- Nothing of the torn tail stands before what came after it.
        assert.equal("after", select(-1, table.unpack(commands(leading()))))
      end
      assert.same({}, told())
      assert.equal(size - 1, cuts()) -- Each once. Neither of nothing, nor of all.
    end)

    it("refuses to open on other damage, naming file and offset", function ()
      local m = leading()
      for i = 1, 5 do propose(m, "c" .. i) world:settle() end
      begin(world:crash())
      local file = world.files[LOG]
      file.bytes = file.bytes:sub(1, 80) .. "!" .. file.bytes:sub(82)
      local again, err, code = machine()
      assert.is_nil(again.tier)
      assert.equal("MALFORMED", code)
      assert.truthy(err:find "^tier managers: d/log: offset 7%d: a damaged record after number 2", err)
    end)

    it("restores the snapshot and replays what followed", function ()
      local m = leading { rotate_bytes = 1024 }
      for i = 1, 60 do propose(m, ("c%d"):format(i)) world:settle() end
      assert.truthy(world.files[SNAPSHOT])
      assert.is_true(#world.files[LOG].bytes < 1100)
      begin(world:crash())
      local again = leading { rotate_bytes = 1024 }
      assert.truthy(again.restored)
      assert.equal(60, #again.applied)
      for i = 1, 60 do assert.same({ i + 1, "c" .. i }, again.applied[i]) end
      assert.same({ "lead 62" }, again.events)
    end)

    it("loses nothing when it comes between the snapshot and the cut of the log", function ()
      local m = leading()
      for i = 1, 10 do propose(m, "c" .. i) world:settle() end
      local files = world:crash()
      files.files[SNAPSHOT] = { bytes = record.encode_snapshot(6, "2=c1;3=c2;4=c3;5=c4;6=c5"), synced = 0 }
      begin(files)
      local again = leading()
      assert.same({ "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "c10" }, commands(again))
    end)

    it("keeps what was under way while the log was cut", function ()
      local m = leading { rotate_bytes = 1024 }
      local results = {}
      for i = 1, 100 do -- always one more on its way when a sync ends
        results[i] = propose(m, "command number " .. i)
        if i > 1 then world:last_log():complete() end
        if i % 7 == 0 then
          world:put_all()
          world:advance(0)
        end
      end
      world:settle()
      for i = 1, 100 do assert.equal(i + 1, results[i].index) end
      assert.is_true(world.puts > 3)
      assert.is_nil(world.files["d/log.old"])
      begin(world:crash())
      assert.equal(100, #leading().applied)
    end)

    it("loses nothing at any step of cutting the log, and leaves one log and one snapshot", function ()
      for steps = 0, 12 do
        begin(disk.new())
        local m = leading { rotate_bytes = 1024 }
        local acknowledged = {}
        local function command(i)
          local result = propose(m, "c" .. i)
          world:last_log():complete()
          if result.index then acknowledged[#acknowledged + 1] = "c" .. i end
        end
        for i = 1, 40 do command(i) end -- Long enough: log.next is asked for.
        for step = 1, steps do
          if step % 3 == 0 then
            world:advance(0)
          elseif step % 3 == 1 then
            command(100 + step)
          elseif world.later[1] then
            local put = table.remove(world.later, 1)
            put.fn(world:put_durable(put.path, put.bytes))
          end
        end
        propose(m, "under way")
        begin(world:crash())
        local again = leading()
        assert.same(acknowledged, table.move(commands(again), 1, #acknowledged, 1, {}))
        assert.is_nil(world.files["d/log.old"])
        assert.is_true(world.files["d/log.next"] == nil or world.files["d/log.next"].bytes == record.LOG_HEADER)
      end
    end)

    it("loses nothing when it comes between two renames, of which the disk kept none, or the first", function ()
      for kept = 0, 1 do
        begin(disk.new())
        local m = leading { rotate_bytes = 1024 }
        for i = 1, 40 do propose(m, "c" .. i) world:last_log():complete() end
        local put = table.remove(world.later, 1)
        put.fn(world:put_durable(put.path, put.bytes)) -- The new log takes over.
        propose(m, "new")
        world:last_log():complete()
        local left = world:crash()
        local files = left.files
        assert.is_table(files["d/log.old"])
        files["d/log.next"], files[LOG] = files[LOG], nil
        if kept == 0 then files[LOG], files["d/log.old"] = files["d/log.old"], nil end
        begin(left)
        local again = leading()
        assert.same({ 41, "new" }, { #again.applied, again.applied[41][2] })
        assert.same({}, { world.files["d/log.old"], world.files["d/log.next"] })
      end
    end)

    it("asks for one next log at a time, however long its disk takes", function ()
      local m = leading { rotate_bytes = 1024 }
      for i = 1, 200 do propose(m, "c" .. i) world:last_log():complete() end
      assert.equal(1, #world.later)
      world:settle()
      assert.same({}, told())
      begin(world:crash())
      assert.equal(200, #leading().applied)
    end)

    it("writes no snapshot that could not be read again, for its size", function ()
      local piece, given = ("x"):rep(16 << 20), 0
      local m = leading { rotate_bytes = 1024, snapshot = function ()
        given = 0
        return function ()
          given = given + 1
          return given <= 17 and piece or nil
        end
      end }
      for i = 1, 40 do propose(m, "c" .. i) world:last_log():complete() end
      world:settle()
      for _ = 1, 20 do world:advance(0) end
      assert.equal(16, given) -- 256 MiB: one piece past the limit.
      assert.same({ "tier.snapshot" }, told())
      assert.equal("TOO_LARGE", errors.incidents()[1].code)
      assert.is_table(world.files["d/log.old"])
      assert.is_nil(world.files[SNAPSHOT])
    end)

    it("packs a state that comes in pieces over several turns, and the commands between are not in it", function ()
      local turns, m = 0, nil
      m = leading { rotate_bytes = 1024, snapshot = function ()
        local lines, at = {}, 0
        for i, entry in ipairs(m.applied) do lines[i] = entry[1] .. "=" .. entry[2] .. ";" end
        return function ()
          turns, at = turns + 1, at + 1
          return lines[at]
        end
      end }
      for i = 1, 40 do propose(m, "c" .. i) world:last_log():complete() end
      local fired = 0
      for _, timer in ipairs(world.timers) do
        local fn = timer.fn
        timer.fn = function () fired = fired + 1 return fn() end
      end
      world:put_all() -- log.next
      for i = 41, 44 do
        propose(m, "c" .. i)
        world:last_log():complete()
        world:advance(0)
      end
      assert.is_true(turns > 20 and fired >= turns - 1, "one piece a turn")
      world:settle()
      local index, state = record.read_snapshot(world.files[SNAPSHOT].bytes)
      assert.equal(41, index)
      assert.truthy(state:find "c40")
      assert.is_nil(state:find "c41")
      begin(world:crash())
      assert.equal(44, #leading().applied)
    end)

    it("tries a snapshot again while its disk is full, and cuts no log before", function ()
      local m = leading { rotate_bytes = 1024 }
      for i = 1, 40 do propose(m, "c" .. i) world:last_log():complete() end
      local put = table.remove(world.later, 1) -- log.next is there, and then the disk is full.
      put.fn(world:put_durable(put.path, put.bytes))
      world.put_fails = true
      for i = 41, 90 do propose(m, "c" .. i) world:settle() end
      assert.same({ "tier.snapshot" }, told())
      assert.is_table(world.files["d/log.old"])
      world.put_fails = false
      world:advance(11000)
      world:settle()
      assert.is_nil(world.files["d/log.old"])
      begin(world:crash())
      assert.equal(90, #leading().applied)
    end)

    it("writes no snapshot past SNAPSHOT_MAX, for it could not be read again, and keeps the log", function ()
      local segments = require "shoal.tier.segments"
      local max = segments.SNAPSHOT_MAX
      finally(function () segments.SNAPSHOT_MAX = max end)
      segments.SNAPSHOT_MAX = 3000
      local size = 3001
      local m = leading { rotate_bytes = 1024, snapshot = function ()
        local left = size
        return function ()
          if left == 0 then return nil end
          local n = math.min(left, 1000)
          left = left - n
          return ("x"):rep(n)
        end
      end }
      for i = 1, 60 do propose(m, "c" .. i) world:settle() end
      assert.same({ "tier.snapshot" }, told())
      assert.equal("TOO_LARGE", errors.incidents()[1].code)
      assert.is_nil(world.files[SNAPSHOT])
      assert.is_table(world.files["d/log.old"])
      size = 3000
      world:advance(11000)
      world:settle()
      assert.equal(3000, #select(2, record.read_snapshot(world.files[SNAPSHOT].bytes)))
      assert.is_nil(world.files["d/log.old"])
    end)

    it("says FULL when the log cannot be cut and has reached its limit", function ()
      local m = leading { rotate_bytes = 1024, log_max = 8192 }
      world.put_fails = true
      local code, last
      for i = 1, 400 do
        local result = propose(m, "c" .. i)
        world:settle()
        if result.code then code, last = result.code, result.err break end
      end
      assert.equal("FULL", code)
      assert.truthy(last:find "cannot be cut", last)
    end)

    it("gives a proposer what apply returned", function ()
      local m = leading { apply = function (index, command) return { command = command, at = index } end }
      local answer
      scope:spawn("spec.run", { task = "propose" }, function () answer = select(2, m.tier:propose("x", 1000)) end)
      task.flush()
      world:settle()
      task.flush()
      assert.same({ command = "x", at = 2 }, answer)
    end)

    it("says that a folder which is there has no log in it", function ()
      local lines = {}
      log.open(nil, function (line) lines[#lines + 1] = line end)
      leading()
      assert.is_nil(table.concat(lines):find "tier.new")
      local left = world:crash()
      left.files, left.directories.d = {}, true
      begin(left)
      leading()
      assert.truthy(table.concat(lines):find "tier.new")
    end)

    it("refuses a snapshot that is damaged, or a log whose snapshot is gone", function ()
      local m = leading { rotate_bytes = 1024 }
      for i = 1, 60 do propose(m, "c" .. i) world:settle() end
      local left = world:crash()
      begin(left:crash())
      world.files[SNAPSHOT].bytes = world.files[SNAPSHOT].bytes .. "x"
      local _, err, code = machine()
      assert.equal("MALFORMED", code)
      assert.truthy(err:find "d/snapshot: offset 24: %d+ bytes of state expected", err)
      begin(left:crash())
      world.files[SNAPSHOT] = nil
      _, err = machine()
      assert.truthy(err:find "d/log: records 1 to %d+ are missing", err)
      begin(left:crash())
      world.files[LOG] = nil
      _, err = machine()
      assert.truthy(err:find "d/log: missing, though d holds a snapshot of index %d+", err)
    end)
  end)

  describe("a disk that fails", function ()
    it("F72: a failed sync stops its leadership, loudly; nobody is told it was done", function ()
      local m = leading()
      local first, second = propose(m, "a"), propose(m, "b")
      world:last_log():complete("input/output error", "EIO")
      assert.same({ "UNKNOWN", "UNKNOWN" }, { first.code, second.code })
      assert.truthy(first.err:find "it may still apply", first.err)
      assert.same({}, m.applied)
      assert.same({ "lead 1", "lose 1" }, m.events)
      assert.same({ "tier.log" }, told())
      assert.equal("critical", errors.incidents()[1].level)
      assert.is_false(m.tier:leads())
      assert.equal("NOT_LEADER", propose(m, "c").code)
    end)

    it("F72: a full disk is refused, and the tier goes on when there is room again", function ()
      local m = leading()
      world.append_fails = true
      assert.equal("ENOSPC", propose(m, "a").code)
      world.append_fails = false
      local result = propose(m, "b")
      world:settle()
      assert.equal(2, result.index)
      assert.same({ "tier.log" }, told())
    end)

    it("a snapshot that cannot be written is told, tried again later, and loses nothing", function ()
      local m = leading { rotate_bytes = 1024 }
      world.put_fails = true
      for i = 1, 40 do propose(m, "c" .. i) world:settle() end
      assert.same({ "tier.snapshot" }, told())
      world.put_fails = false
      for i = 41, 80 do propose(m, "c" .. i) world:settle() end
      assert.is_true(#world.files[LOG].bytes < 2048)
      begin(world:crash())
      assert.equal(80, #leading().applied)
    end)

    it("refuses to open where nothing can be written", function ()
      world.put_fails = true
      local _, err, code = machine()
      assert.same({ "tier managers: no space left on device", "ENOSPC" }, { err, code })
    end)
  end)

  describe("apply", function ()
    it("that raises is a critical incident, and the node leads no more", function ()
      local m = leading()
      m.on_apply = function (_, command) if command == "bad" then error "cannot" end end
      local good, bad, late = propose(m, "good"), propose(m, "bad"), propose(m, "late")
      world:settle()
      assert.equal(2, good.index)
      assert.same({ "UNKNOWN", "UNKNOWN" }, { bad.code, late.code })
      assert.same({ "good" }, commands(m))
      assert.same({ "lead 1", "lose 2" }, m.events)
      assert.same({ "tier.apply" }, told())
      local incident = errors.incidents()[1]
      assert.same({ "critical", "managers", 3 }, { incident.level, incident.ids.tier, incident.ids.index })
    end)

    it("that raises at the replay refuses to open", function ()
      local m = leading()
      propose(m, "bad")
      world:settle()
      begin(world:crash())
      local again, err, code = machine { apply = function () error "still cannot" end }
      assert.is_nil(again.tier)
      assert.equal("FAILED", code)
      assert.truthy(err:find "d/log: record 2 could not be applied: .*still cannot", err)
    end)

    it("must not propose, and cannot wait", function ()
      local m = leading()
      m.on_apply = function () m.tier:propose("again", 1) end
      propose(m, "a")
      world:settle()
      assert.truthy(errors.incidents()[1].message:find "apply must not propose")
      errors.reset()
      begin(disk.new())
      m = leading()
      m.on_apply = function () task.sleep(1) end
      propose(m, "a")
      world:settle()
      assert.same({ "tier.apply" }, told())
      assert.is_false(m.tier:leads())
    end)
  end)

  it("says so when a hook raises, and leads on", function ()
    local m = leading { on_lead = function () error "hook" end }
    local result = propose(m, "a")
    world:settle()
    assert.equal(2, result.index)
    assert.same({ "tier.on_lead" }, told())
  end)

  it("tells who waits when it is closed, also from within apply, and takes no more", function ()
    local m = leading()
    m.on_apply = function () m.tier:close() end
    local first, second = propose(m, "a"), propose(m, "b")
    world:settle()
    task.flush()
    assert.equal("UNKNOWN", second.code)
    assert.truthy(first.done)
    assert.equal("NOT_LEADER", propose(m, "c").code)
    m.tier:close()
    assert.same({ "lead 1" }, m.events)
    assert.same({}, told())
  end)
end)
