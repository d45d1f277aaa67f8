local door = require "shoal.core.door"
local uncollected = require "spec.support.uncollected"
local uv = require "luv"
local world = require "shoal.core.world".current()

describe("the door", function ()
  local told

  before_each(function ()
    told = {}
    door.sink(function (site, err, traceback) told[#told + 1] = { site = site, err = err, traceback = traceback } end, true)
  end)
  after_each(function () door.sink(nil) end)

  --- Run fn as a callback from C, and the loop until it is empty.
  local function call(fn)
    local timer
    timer = world:timer(function (t)
      t:close()
      fn()
    end)
    timer:start(0)
    uv.run()
    assert.equal(0, world:telemetry().open_handles)
  end

  it("hands the error value itself to the sink, with site and traceback", function ()
    local value = { code = "X" }
    call(function () error(value) end)
    assert.equal(1, #told)
    assert.equal("world.timer", told[1].site)
    assert.equal(value, told[1].err)
    assert.truthy(told[1].traceback:find("door_spec.lua", 1, true))
  end)

  it("keeps nil, false and text as they were raised", function ()
    call(function () error(nil) end)
    call(function () error(false) end)
    call(function () error("plain", 0) end)
    assert.equal(3, #told)
    assert.is_nil(told[1].err)
    assert.is_false(told[2].err)
    assert.equal("plain", told[3].err)
  end)

  it("says to spawn a task when a callback tries to wait", function ()
    call(function () coroutine.yield() end)
    assert.equal(1, #told)
    assert.truthy(told[1].traceback:find("spawn a task", 1, true))
  end)

  it("reports a stack that overflows", function ()
    local _ <close> = uncollected()
    local function deeper() return 1 + deeper() end
    call(deeper)
    assert.equal(1, #told)
    assert.truthy(tostring(told[1].err):find("stack overflow", 1, true))
  end)

  it("lets the next callback run after one raised", function ()
    local ran = 0
    local timers = {}
    for i = 1, 3 do
      timers[i] = world:timer(function (t)
        t:close()
        ran = ran + 1
        error("each", 0)
      end)
      timers[i]:start(0)
    end
    uv.run()
    assert.equal(3, ran)
    assert.equal(3, #told)
  end)

  it("counts by itself what a failing sink could not take", function ()
    local before = door.incidents()
    door.sink(function () error "the sink is broken" end, true)
    call(function () error("lost?", 0) end)
    assert.equal(2, door.incidents() - before) -- The sink's own failure, and the reported one.
  end)

  it("takes errors of luv's callbacks too, once adopted", function ()
    local timer = uv.new_timer()
    timer:start(0, 0, function ()
      timer:close()
      error({ "from luv" })
    end)
    uv.run()
    assert.equal("luv.callback", told[1].site)
    assert.same({ "from luv" }, told[1].err)
  end)
end)

describe("an error in a callback that nobody expected", function ()
  it("is raised again, unchanged, by uv.run", function ()
    local value = { "mine" }
    local timer = uv.new_timer()
    timer:start(0, 0, function ()
      timer:close()
      error(value)
    end)
    assert.error(function () uv.run() end, value)
  end)

  it("is raised for the world's callbacks as well", function ()
    local t = world:timer(function (t)
      t:close()
      error("loud", 0)
    end)
    t:start(0)
    assert.error(function () uv.run() end, "loud")
    uv.run()
  end)
end)
