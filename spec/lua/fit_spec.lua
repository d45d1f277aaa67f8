--- Labels, constraints and cores: what can run where, and the reason when nothing can.
local fit = require "shoal.job.fit"

local function worker(name, cores, labels, more)
  local e = { name = name, cores = cores, labels = labels or {}, state = "up" }
  for key, value in pairs(more or {}) do e[key] = value end -- order-free: a copy
  return e
end

local function dc(name, workers, more)
  local cores, largest = 0, 0
  for _, w in ipairs(workers) do cores, largest = cores + w.cores, math.max(largest, w.cores) end
  local e = { name = name, cores = cores, largest = largest, state = "up" }
  e.classes, e.more = fit.classes(workers)
  for key, value in pairs(more or {}) do e[key] = value end -- order-free: a copy
  return e
end

describe("a constraint", function ()
  local labels = { gpu = "a100", disk = "ssd" }

  it("is met by a value, one of several, any value, or the absence of a label; all of its labels count", function ()
    for _, case in ipairs {
      { { gpu = "a100" }, true }, { { gpu = "h100" }, false }, { { gpu = { "h100", "a100" } }, true }, { { gpu = { "h100" } }, false },
      { { gpu = true }, true }, { { zone = true }, false }, { { zone = false }, true }, { { gpu = false }, false },
      { { gpu = "a100", disk = "ssd" }, true }, { { gpu = "a100", disk = "hdd" }, false }, { {}, true },
    } do assert.equal(case[2], fit.meets(labels, case[1]), fit.text(case[1])) end
    assert.is_true(fit.meets({}, nil))
    assert.equal("disk=ssd|nvme, gpu=a100, no spot, any zone",
      fit.text { disk = { "ssd", "nvme" }, gpu = "a100", spot = false, zone = true })
  end)

  it("is met in a datacenter by one worker, not by two of which each has a half", function ()
    local a = dc("a", { worker("w1", 4, { gpu = "a100" }), worker("w2", 8, { disk = "ssd" }) })
    assert.is_true(fit.able(a, 4, { gpu = "a100" }))
    assert.is_false(fit.able(a, 1, { gpu = "a100", disk = "ssd" }))
    assert.is_false(fit.able(a, 8, { gpu = "a100" }))
    assert.is_true(fit.able(a, 8))
    assert.is_false(fit.able(a, 12))
  end)
end)

describe("labels of a worker", function ()
  it("are at most LABELS_MAX and LABELS_BYTES_MAX, each a name and a short text", function ()
    local many = {}
    for i = 1, fit.LABELS_MAX do many["n" .. i] = "v" end
    assert.is_nil(fit.problem(many))
    many.one_more = "v"
    assert.equal(("labels: %d of them; at most %d"):format(fit.LABELS_MAX + 1, fit.LABELS_MAX), fit.problem(many))
    local half = fit.LABELS_BYTES_MAX // 4 - 2
    local big = { a = ("x"):rep(half - 1), b = ("x"):rep(half - 1), c = ("x"):rep(half - 1) }
    big.d = ("x"):rep(fit.LABELS_BYTES_MAX - 3 * (half + 2) - 3)
    assert.is_nil(fit.problem(big))
    big.d = big.d .. "x"
    assert.truthy(fit.problem(big):find("257 bytes together", 1, true))
    assert.is_nil(fit.problem { a = ("x"):rep(fit.TEXT_MAX) })
    assert.truthy(fit.problem { a = ("x"):rep(fit.TEXT_MAX + 1) })
    for _, bad in ipairs { { ["a b"] = "x" }, { a = "x\n" }, { a = 5 }, { "x" }, { a = "b,c" }, { [("n"):rep(65)] = "x" } } do
      assert.truthy(fit.problem(bad))
    end
  end)

  it("travel to the gates by class, at most CLASSES_MAX; a gate assumes that the rest may fit", function ()
    local workers = { worker("w0", 2, { rack = "r1" }), worker("w00", 4, { rack = "r1" }) }
    for i = 2, fit.CLASSES_MAX do workers[#workers + 1] = worker("w" .. i, 4, { rack = "r" .. i }) end
    local classes, more = fit.classes(workers)
    assert.same({ fit.CLASSES_MAX, 0 }, { #classes, more })
    assert.same({ labels = { rack = "r1" }, count = 2, cores = 4 }, classes[1])
    assert.is_false(fit.able(dc("a", workers), 1, { rack = "elsewhere" }))
    workers[#workers + 1] = worker("last", 16, { rack = "zzz" })
    local a = dc("a", workers)
    assert.same({ fit.CLASSES_MAX, 1 }, { #a.classes, a.more })
    assert.is_true(fit.able(a, 16, { rack = "elsewhere" }))
    assert.is_false(fit.able(a, 17, { rack = "elsewhere" }))
  end)
end)

describe("the reason that nothing can run a part", function ()
  local cpu, gpu = worker("w1", 4), worker("w2", 8, { gpu = "a100" })

  it("is nil when something can, however busy", function ()
    assert.is_nil(fit.why({ cpu, gpu }, 8))
    assert.is_nil(fit.why({ cpu, gpu }, 1, { gpu = "a100" }))
    assert.is_nil(fit.why({ dc("a", { cpu, cpu }), dc("b", { gpu }) }, 8, { gpu = true }))
  end)

  it("names what is missing: a worker that is up, its cores, its label", function ()
    assert.equal("no worker is up", fit.why({}, 1))
    assert.equal("no worker is up", fit.why({ worker("w", 8, {}, { state = "down" }) }, 1))
    assert.equal("needs 9 cores, the largest worker has 8", fit.why({ cpu, gpu }, 9))
    assert.equal("needs 9 cores, the largest worker with gpu=a100 has 8", fit.why({ cpu, gpu, worker("w3", 64) }, 9, { gpu = "a100" }))
    assert.equal("no worker has gpu=h100", fit.why({ cpu, gpu }, 1, { gpu = "h100" }))
    assert.equal("no worker has no gpu", fit.why({ gpu }, 1, { gpu = false }))
  end)

  it("A13: of a datacenter is its largest worker, not the sum of its workers", function ()
    assert.equal("needs 6 cores, the largest worker of a has 4", fit.why({ dc("a", { cpu, cpu }) }, 6))
    assert.equal("needs 16 cores, the largest worker of b has 8", fit.why({ dc("a", { cpu, cpu }), dc("b", { gpu }) }, 16))
    assert.equal("no worker has gpu=h100", fit.why({ dc("a", { cpu }), dc("b", { gpu }) }, 1, { gpu = "h100" }))
    assert.equal("no worker of a is up", fit.why({ dc("a", {}) }, 1))
  end)

  it("names the datacenter that a job asks for and that cannot", function ()
    local rows = { dc("a", { cpu }), dc("b", { gpu }) }
    assert.equal("no worker of a has gpu=a100", fit.why(rows, 1, { gpu = "a100" }, { "a", "b" }))
    assert.is_nil(fit.why(rows, 1, { gpu = "a100" }, { "b" }))
    assert.equal("datacenter c is not up", fit.why(rows, 1, nil, { "a", "c" }))
  end)

  it("names workers that could run it and are cordoned", function ()
    local held = worker("w2", 8, { gpu = "a100" }, { hold = "cordoned" })
    assert.equal("every worker that can run it is cordoned: w2", fit.why({ cpu, held }, 1, { gpu = "a100" }))
    assert.is_nil(fit.why({ cpu, held }, 1))
    assert.equal("every worker that can run it is cordoned: 2 workers of a", fit.why({ dc("a", {}, { held = 2 }) }, 1))
    local many = {}
    for i = 1, 7 do many[i] = worker("w" .. i, 1, {}, { hold = "draining" }) end
    assert.equal("every worker that can run it is cordoned: w1, w2, w3, w4, w5 and 2 more", fit.why(many, 1))
  end)
end)
