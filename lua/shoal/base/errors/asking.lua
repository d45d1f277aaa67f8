--- Asking a policy's function: copies in, a bounded run, a copied and checked answer out; else one incident, and the fallback.
---
---   called --answer fits--> its answer
---     |raises, waits, answers nonsense: an incident       --> the fallback
---     |breaks its budget: an incident, and it rests 10 s  --> the fallback, at once for as long

local incidents = require "shoal.base.errors.incident"
local sandbox = require "shoal.base.errors.sandbox"

local asking = {}

local REST_NS = 10000 * 1000000 -- A function that broke its budget would break it again, and each time costs the loop.

--- means: sandboxed(fn, ...) -> true, values... | false, error, over; protected: pcall; fail(record, ids, caught); clocks()
function asking.new(means) return { means = means, rests = setmetatable({}, { __mode = "k" }) } end

local function ask(self, options, fn, ...)
  local arguments = table.pack(...)
  for i = 1, arguments.n do arguments[i] = sandbox.copy(arguments[i], true) end
  local results = table.pack(self.means.sandboxed(fn, table.unpack(arguments, 1, arguments.n)))
  if not results[1] then return results end
  for i = 2, results.n do results[i] = sandbox.copy(results[i]) end
  if options.check then
    local fine, why = options.check(table.unpack(results, 2, results.n))
    if not fine then return { false, "it answered " .. (why or "what cannot be used") } end
  end
  return results
end

local function failed(self, record, fn, options, err, over)
  local ids = { file = type(fn) == "function" and debug.getinfo(fn, "S").short_src or "?" }
  for key, value in next, options.ids or {} do ids[key] = value end -- order-free: a copy
  if over then self.rests[fn] = { until_ns = self.means.clocks() + REST_NS, err = err } end
  self.means.fail(record, ids, {
    error = err, where = type(err) == "string" and incidents.split(err) or ids.file, value = true,
    hint = over and "the fallback answers for 10 s" or "the fallback answered",
  })
end

--- See errors.policy.
function asking.ask(self, record, fn, options, ...)
  local rest = fn ~= nil and self.rests[fn] or nil
  local failure
  if rest and self.means.clocks() < rest.until_ns then
    failure = rest.err
  else
    local results = { false, "expected a function, found " .. type(fn) }
    if type(fn) == "function" then
      local ok, value = self.means.protected(ask, self, options, fn, ...)
      results = ok and value or { false, value }
    end
    if results[1] then return table.unpack(results, 2, results.n) end
    failure = results[2]
    failed(self, record, fn, options, failure, results[3])
  end
  if options.failed then options.failed(failure) end
  if type(options.fallback) == "function" then return options.fallback(...) end
  return options.fallback
end

return asking
