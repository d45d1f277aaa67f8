--- A shop under load: warm it up, then browse and buy in parallel, then print a line.
---   TARGET=http://127.0.0.1:8081 shoal submit examples/checkout.lua --connect 127.0.0.1:7000
return {
  name = "checkout",
  timeout_ms = minutes(2),
  env = { TARGET = getenv("TARGET", "http://127.0.0.1:8081") },
  workflows = {
    warm = { script = "workflows/warm.lua", vus = 4, iterations = 40 },
    -- Closed loop: as fast as the shop answers, for a time.
    browse = { after = { "warm" }, script = "workflows/browse.lua", vus = 8, duration_ms = seconds(10), retries = 2 },
    -- Open loop: 40 purchases a second, however long the answers take; a slow shop shows in the latencies.
    buy = { after = { "warm" }, script = "workflows/buy.lua", vus = 8, iterations = 400, rate = 40, retries = 2 },
    summary = { after = { "browse", "buy" }, command = "echo the shop has closed; date" },
  },
}
