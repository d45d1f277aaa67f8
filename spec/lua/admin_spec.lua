--- A node's answer about its incidents fits a message, whatever they hold.
local incidents = require "shoal.node.incidents"
local errors = require "shoal.errors"
local fake_world = require "spec.support.fake_world"
local log = require "shoal.log"
local messages = require "shoal.messages"

local MESSAGE_MAX = 3 * 1024 * 1024

describe("a node's incidents", function ()
  before_each(function ()
    errors.reset()
    log.reset()
    local world = fake_world.new()
    assert(log.open(world, function () end))
    errors.start(world, "node")
  end)
  after_each(function ()
    errors.reset()
    log.reset()
  end)

  it("are answered in any number, size and shape: texts and ids are cut at 1000 bytes", function ()
    local long = ("x"):rep(5000)
    for i = 1, 550 do
      errors.call("spec.big" .. i % 110, { job = long, part = long:sub(1, 1000), list = { 1, 2, i }, deep = { { {} } } }, error, long)
    end
    local rows = incidents.own("node", 1000)
    assert.equal(512, #rows)
    local last = rows[512]
    assert.equal(("x"):rep(1000) .. "... and 4000 bytes more", last.message)
    assert.equal(last.message, last.ids.job)
    assert.equal(long:sub(1, 1000), last.ids.part)
    assert.equal("[1,2,550]", last.ids.list)
    assert.is_true(#assert(messages.encode_reply("node.incidents", { incidents = rows })) < MESSAGE_MAX)
    assert.same({}, incidents.own("node", -1))
  end)
end)
