--- Results of ended runs as files: durable before they are named, judged when they are read, gone with their run.
local disk = require "spec.support.disk"
local errors = require "shoal.errors"
local log = require "shoal.log"
local results = require "shoal.job.results"
local task = require "shoal.task"

describe("results", function ()
  local world, scope, kept

  before_each(function ()
    errors.reset()
    log.open(nil, function () end)
    task.reset()
    world = disk.new()
    function world.list(_, directory)
      local names = {}
      for path in pairs(world.files) do names[#names + 1] = path:match("^" .. directory .. "/(.*)$") end
      table.sort(names)
      return names
    end
    errors.start(world, "m1")
    task.start(world)
    scope = task.scope "spec"
    kept = assert(results.open({ world = world }, "r"))
  end)
  after_each(function ()
    scope:close()
    task.stop()
    assert.is_true(errors.balance())
  end)

  local function keep(bytes, index)
    local out = {}
    scope:spawn("spec.run", { task = "keep" }, function ()
      out.kept, out.err, out.code = kept:keep({ index = index or 1 }, bytes)
      out.done = true
    end)
    task.flush()
    return out
  end
  local function put()
    world:put_all()
    task.flush()
  end
  local function files() return world:list "r" end

  it("travel in the log up to INLINE_MAX, and are files one byte beyond", function ()
    local small = ("x"):rep(results.INLINE_MAX)
    assert.same({ result = small }, keep(small).kept)
    local large = keep(small .. "x", 0x1234)
    assert.is_nil(large.done) -- Not before it is durable.
    put()
    assert.equal(results.INLINE_MAX + 1, large.kept.file.bytes)
    assert.same({ large.kept.file.name }, files())
    assert.equal(small .. "x", kept:read(large.kept))
  end)

  it("are refused with the disk's reason when they cannot be written", function ()
    world.put_fails = true
    local large = keep(("x"):rep(results.INLINE_MAX + 1))
    put()
    assert.same({ nil, "ENOSPC" }, { large.kept, large.code })
    world.put_refused = true
    assert.equal("FULL", keep(("x"):rep(results.INLINE_MAX + 1)).code)
  end)

  it("are not read when a file is not what was written: other content, another length, gone", function ()
    local large = keep(("x"):rep(10000))
    put()
    local run, path = large.kept, "r/" .. large.kept.file.name
    assert.is_string(kept:read(run))
    for _, bytes in ipairs { ("x"):rep(9999) .. "y", ("x"):rep(9999), ("x"):rep(10001) } do
      world.files[path].bytes = bytes
      local none, err, code = kept:read(run)
      assert.same({ nil, "MALFORMED" }, { none, code })
      assert.truthy(err:find("is not what was written", 1, true), err)
    end
    kept:remove(run.file.name)
    assert.equal("ENOENT", (select(3, kept:read(run))))
    assert.equal("NOT_FOUND", (select(3, kept:read {})))
    assert.truthy(select(2, kept:read { dropped = true }):find("to make room", 1, true))
  end)

  it("go when no run names them, at the start of a leadership", function ()
    local one, two = keep(("x"):rep(10000), 1), keep(("y"):rep(10000), 2)
    put()
    assert.equal(2, #files())
    kept:sweep { [two.kept.file.name] = true }
    assert.same({ two.kept.file.name }, files())
    assert.is_nil((kept:read(one.kept)))
  end)

  it("that are gone already need no removal; one that cannot be removed is an incident", function ()
    kept:remove "nothing"
    kept:remove(nil)
    assert.same({}, errors.incidents())
    function world.unlink() return nil, "read-only file system", "EROFS" end
    kept:remove "stuck"
    assert.equal("lead.results", errors.incidents()[1].site)
  end)
end)
