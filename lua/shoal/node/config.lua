--- config: the settings of a node, their defaults, and what must hold across them.
local correlation = require "shoal.member.correlation"
local federation = require "shoal.member.federation"
local fit = require "shoal.job.fit"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"
local swim = require "shoal.member.swim"

--- The fields of a record, each optional here: what is not given follows from dc_silent_ms.
local function optional(record)
  local fields = {}
  for name, field in sorted(record.fields) do
    fields[name] = field.kind == "optional" and field or schema.optional(schema.integer { min = field.min, max = field.max, doc = field.doc })
  end
  return fields
end
local probing, correlating = optional(federation.config), optional(correlation.config)

local NAME = "^[%w][%w%-_%.]*$"
local NAME_OR_NONE = "^[%w%-_%.]*$" -- Names become parts of keys ("warm/a", "job|part"), of file names and of lines of a log.
local FORM = "letters, digits, '-', '_' and '.', such as w-a1"

--- What `shoal run` takes, as options or in a config file. Every time is in milliseconds.
return schema.record({
  name = schema.string { default = "", max = 64, pattern = NAME_OR_NONE, doc = FORM },
  cluster = schema.string { default = "shoal", max = 64, pattern = NAME, doc = FORM },
  dc = schema.string { default = "", max = 64, pattern = NAME_OR_NONE, doc = FORM },
  bind = schema.string { default = "127.0.0.1:0", doc = "address for streams and datagrams; loopback only while there are no keys" },
  join = schema.array(schema.string { max = 128 }, { max = 64, default = {} }),
  gates = schema.array(schema.string { max = 128 }, { max = 64, default = {} }),
  connect = schema.array(schema.string { max = 128 }, { max = 64, default = {} }),
  data = schema.string { default = "", doc = "folder that a restart finds again, for this node alone" },
  log = schema.string { default = "", doc = "JSON-lines file; empty: stderr" },
  log_level = schema.enum { "debug", "info", "warning", "error", "critical", default = "info" },
  policies = schema.string { default = "", doc = "folder of policy scripts; empty: the shipped ones" },
  profile = schema.enum { "local", "lan", "wan", default = "local" },
  membership = schema.record(swim.tunables, nil, { default = {}, doc = "values of lua/shoal/member/swim.lua other than the profile's" }),
  record = schema.string { default = "", max = 1024, doc = "file for a recording of membership's inputs, for swim.replay" },
  cores = schema.integer { default = 4, min = 1, max = 4096 },
  pass_env = schema.string { default = "", max = 4096, pattern = "^[%w_,%*]*$",
    doc = "names of the worker's environment that commands get besides the usual ones: A,B or A_*" },
  labels = schema.map(schema.any(), { default = {}, doc = "what a worker says of itself; jobs ask for it with `where`" }),
  flush_ms = schema.integer { default = 50, min = 5, max = 60000 },
  push_ms = schema.integer { default = 250, min = 10, max = 60000 },
  heartbeat_ms = schema.integer { default = 1000, min = 50, max = 60000 },
  -- From a cut to `unreachable` at a gate: 5 probes of 2 s and the last one's timeout of 5 s, then 30 s of suspicion. With another value all
  -- four are in these proportions. Its eviction follows 2 * correlation.down_ms later, 10 s of 45 s. A manager that restarts before it is
  -- taken back with what it runs.
  dc_silent_ms = schema.integer { default = 45000, min = 200, max = 600000 },
  correlation = schema.record(correlating, nil, { default = {}, doc = "values of lua/shoal/member/correlation.lua, other than such parts" }),
  federation = schema.record(probing, nil, { default = {}, doc = "values of lua/shoal/member/federation.lua other than those" }),
  dc_forget_ms = schema.integer { default = 86400000, min = 1000, max = 864000000, doc = "how long a gate keeps a manager that is silent" },
  manager_silent_ms = schema.integer { default = 120000, min = 100, max = 86400000 },
  gate_silent_ms = schema.integer { default = 180000, min = 100, max = 86400000 },
  -- A finished job's key is kept for 300 s whatever the bytes.
  retention_ms = schema.integer { default = 604800000, min = 0, max = 2592000000, doc = "how long a finished job is kept" },
  retention_bytes = schema.integer { default = 268435456, min = 0, max = 1 << 40, doc = "what finished jobs may take; the oldest go first" },
  -- An executor that does not reach its leader for so long loses its parts: longer than connections take to come back, shorter than people
  -- wait. tier/tenure.lua derives the other times from it; a slow profile has longer leases.
  lease_ms = schema.integer { default = 30000, min = 300, max = 1800000, doc = "how long a leader's lease of a part counts without a renewal" },
  -- How long the operator of a leader may take to restart it: a reboot of a machine takes 2 to 5 minutes, an upgrade of the system not much
  -- longer. Until then its parts run on, for hours of work are worth more than cores that wait for some minutes.
  restart_ms = schema.integer { default = 600000, min = 0, max = 86400000, doc = "how long parts run on while their leader is down" },
  -- Above the time that a leader tries to deliver one dispatch: a message of an attempt that ended comes no later.
  fence_ms = schema.integer { default = 60000, min = 0, max = 86400000, doc = "how long a worker remembers a part that ended" },
  progress_per_s = schema.integer { default = 20000, min = 1, max = 10000000, doc = "progress messages a leader takes a second" },
  -- How long a callback of a script may run before it is interrupted; 0: for ever. Membership calls us dead long before.
  hang_ms = schema.integer { default = 10000, min = 0, max = 3600000 },
  stop_ms = schema.integer { default = 3000, min = 0, max = 600000 },
}, function (c)
  if c.lease_ms < 3 * c.heartbeat_ms then return "lease_ms must be at least 3 * heartbeat_ms: it is renewed after a third" end
  if c.dc_silent_ms <= 2 * c.heartbeat_ms then return "dc_silent_ms must exceed 2 * heartbeat_ms" end
  for name, value in next, c.labels do -- order-free: numbers, as the command line gives them, become text
    if math.type(value) then c.labels[name] = tostring(value) end
  end
  local problem = fit.problem(c.labels)
  if problem then return problem end
  local values, given = federation.scaled(c.dc_silent_ms), next(c.federation) ~= nil
  for name, value in sorted(c.federation) do values[name] = value end
  local probes, wrong = federation.config(values)
  if not probes then return "federation: " .. wrong end
  c.federation = probes
  if given then c.dc_silent_ms = select(2, federation.bounds(probes)) end
  values = correlation.scaled(c.dc_silent_ms)
  for name, value in sorted(c.correlation) do values[name] = value end
  c.correlation, wrong = correlation.config(values)
  if not c.correlation then return "correlation: " .. wrong end
  if c.dc_forget_ms < c.dc_silent_ms then return "dc_forget_ms must be at least dc_silent_ms" end
end)
