--- What the processes of spec/bench/core/processes.lua share: two messages of the bench's own, and their stdin.
local messages = require "shoal.messages"

local shared = {}

function shared.define()
  messages.type("BenchLease", { { "key", "string" }, { "fence", "integer" } })
  messages.type("BenchRefused", { { "key", "string" }, { "fence", "integer" }, { "code", "string" } })
  messages.define { name = "bench.take", id = 990, lane = "control", from = { "worker" }, to = { "manager" }, timeout_ms = 10000,
    fields = { { "holder", "string" }, { "prefix", "string" }, { "from", "integer" }, { "count", "integer" } },
    reply = { { "fence", "integer" }, { "ttl_ms", "integer" } } }
  messages.define { name = "bench.renew", id = 991, lane = "control", from = { "worker" }, to = { "manager" }, timeout_ms = 5000,
    fields = { { "holder", "string" }, { "items", "array:BenchLease" } }, reply = { { "refused", "array:BenchRefused" } } }
end

--- Call on_line for each line of stdin, and on_end at its end.
function shared.on_lines(world, on_line, on_end)
  local stdin, rest = assert(world:stdio(0)), ""
  stdin:attach {
    on_read = function (_, bytes)
      rest = (rest .. bytes):gsub("([^\n]*)\n", function (line)
        on_line(line)
        return ""
      end)
    end,
    on_end = on_end,
  }
end

return shared
