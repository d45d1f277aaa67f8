--- The errors policy: the log level of each failure, and how often it is reported. Edit it while nodes run: a change takes effect at
--- the next incident. A mistake in this file is itself reported, with its line, and the last good policy stays in use.
---
---   level    "debug" | "info" | "warning" | "error" | "critical"; without one, the site's own (lua/shoal/base/sites.lua)
---   burst    this many are reported without a limit ...
---   per_ms   ... then one in this time; the others are counted and announced at the same level
---   fields   the fields of an incident to write, besides its id and site (default: all):
---            message, code, where, count, ids, missing, error, hint, traceback
---   traces   how many tracebacks to keep of each fingerprint (site and file:line)
---
--- There is no "silent": a lower level does not stop the count. `shoal incidents` shows the reported ones, and each node
--- prints `raised = reported + suppressed + handled` when it ends.
return {
  default = { burst = 5, per_ms = 10000, traces = 3 },

  sites = {
    -- Garbage from one leader; the tenth in a row is a warning, see below.
    ["worker.progress.ack"] = { level = "debug" },
    ["manager.progress.ack"] = { level = "debug" },
    -- One virtual user's failed step: the run's numbers count it too.
    ["exec.vu"] = { burst = 2, per_ms = 30000 },
  },

  --- Called for each incident with the entries above, merged for its site. Return a level, a table with some of
  --- level, burst and per_ms, or nothing. It gets a copy and runs to its end at once, within a budget of instructions, time and
  --- memory: it cannot wait, and has no io, os or require. When it fails, the built-in policy replaces it until the file changes.
  ---   incident = { site =, ids = {}, message =, code =, where = "file:line", error = (any value), count = }
  decide = function (incident, _)
    if incident.site:find("%.progress%.ack$") and incident.ids.consecutive == 10 then return "warning" end
  end,
}
