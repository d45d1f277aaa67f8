--- The raw cases of `scripts/bench http_corpus`, without curl: each response has its verdict, and leaves the connection in step.
local http = require "shoal.http"
local raw = require "spec.bench.http.raw"
local raw_cases = require "spec.bench.http.raw_cases"
local real = require "spec.support.real"

describe("a response of the corpus", function ()
  it("has its verdict, and the next request finds its own answer", function ()
    real.run(function (world)
      local listener = assert(raw.serve(world, "127.0.0.1:0", raw_cases))
      local client <close> = http.client(world, { base_url = "http://" .. listener:address() })
      for _, case in ipairs(raw_cases) do
        local r, err, code = client:request {
          method = case.method, url = "/" .. case.name, headers = case.headers, timeout_ms = case.after == "hang" and 50 or 5000,
        }
        local found = r and { r.status, r.body } or code
        assert.same(case.want, found, case.name .. ": " .. tostring(err))
        assert.equal("ok", assert(client:get "/ok").body, "after " .. case.name)
      end
      listener:close()
    end)
  end)

  it("is one of at least 100, each with a name of its own", function ()
    local names = {}
    for _, case in ipairs(raw_cases) do
      assert.is_nil(names[case.name])
      names[case.name] = true
    end
    assert(#raw_cases >= 100)
  end)
end)
