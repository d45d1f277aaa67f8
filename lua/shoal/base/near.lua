--- near: the name that somebody probably meant: a slip of the pen, or the word that another tool has for the same thing.
local near = {}

--- What other tools call a thing, and what it is called here. A word counts only where one of its names is known.
near.OTHERS = {
  arguments = { "command" },
  args = { "command" }, cmd = { "command" }, exec = { "command" }, run = { "command" }, shell = { "command" },
  capacity = { "cores" }, cpu = { "cores", "cpu_s" }, cpus = { "cores" }, slots = { "cores" },
  cells = { "datacenters" }, clusters = { "datacenters" },
  dcs = { "datacenters", "dc" }, regions = { "datacenters" }, zones = { "datacenters" },
  datacenter = { "datacenters", "dc" }, region = { "dc" }, zone = { "dc" },
  concurrency = { "vus" }, users = { "vus" }, clients = { "vus" }, virtual_users = { "vus" }, threads = { "vus" },
  count = { "iterations", "parts" }, loops = { "iterations" }, requests = { "iterations" }, repeats = { "iterations", "parts" },
  times = { "iterations", "parts" },
  depends = { "after" }, depends_on = { "after" }, dependencies = { "after" },
  needs = { "after" }, requires = { "after" }, wait_for = { "after" },
  deadline = { "timeout_ms" }, limit = { "timeout_ms" }, timeout = { "timeout_ms", "request_timeout_ms" }, timeout_s = { "timeout_ms" },
  duration = { "duration_ms" }, duration_s = { "duration_ms" },
  environment = { "env" }, envs = { "env" }, variables = { "env" }, vars = { "env" },
  attempts = { "retries" }, max_retries = { "retries" }, restarts = { "retries" }, retry = { "retries" },
  file = { "script" }, path = { "script" }, source = { "script" },
  instances = { "parts" }, parallelism = { "parts" }, replicas = { "parts" }, shards = { "parts" }, splits = { "parts" },
  jobs = { "workflows" }, stages = { "workflows" }, steps = { "workflows" }, tasks = { "workflows" }, scenarios = { "workflows" },
  rps = { "rate" }, qps = { "rate" }, arrival_rate = { "rate" },
  id = { "name" }, title = { "name" },
  default = { "vu" }, iteration = { "vu" }, user = { "vu" },
  after_all = { "teardown" }, cleanup = { "teardown" }, before_all = { "setup" }, init = { "setup", "start" },
  base = { "base_url" }, host = { "base_url", "bind" }, target = { "base_url" }, url = { "base_url" },
  address = { "bind" }, addr = { "bind" }, listen = { "bind" }, port = { "bind" },
  agents = { "workers" }, executors = { "workers" }, nodes = { "workers" }, servers = { "managers" },
  gateways = { "gates" }, leaders = { "managers" }, masters = { "managers" },
  config = { "set" }, options = { "set" }, settings = { "set" }, data_dir = { "data" }, data_folder = { "data" },
  handlers = { "answers" }, receives = { "answers" }, on = { "hooks" }, close = { "stop" }, open = { "start" }, shutdown = { "stop" },
  seeds = { "join" }, peers = { "join" }, log_file = { "log" }, verbosity = { "log_level" },
}

--- Edit distance, neighbours swapped counting once; never more than `limit + 1`.
local function distance(a, b, limit)
  if math.abs(#a - #b) > limit then return limit + 1 end
  local before, row = {}, {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local next_row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local best = math.min(row[j] + 1, next_row[j - 1] + 1, row[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      next_row[j] = best
    end
    before, row = row, next_row
  end
  return row[#b]
end
near.distance = distance

local LETTERS_MAX = 64 -- A longer word is no slip of the pen.

--- The name somebody probably meant, or nil. `names` in any order; ties go to the first bytewise.
---@param word any
---@param names string[]
---@return string?
function near.of(word, names)
  if type(word) ~= "string" or #word > LETTERS_MAX then return nil end
  local lower = word:lower()
  local best, best_distance
  local limit = #word <= 4 and 1 or #word <= 8 and 2 or 3
  for _, name in ipairs(names) do
    local d = distance(lower, name:lower(), limit)
    if d <= limit and (not best or d < best_distance or (d == best_distance and name < best)) then
      best, best_distance = name, d
    end
  end
  if best and best_distance <= 1 then return best end
  for _, meant in ipairs(near.OTHERS[lower:gsub("%-", "_")] or {}) do
    for _, name in ipairs(names) do
      if name == meant then return name end
    end
  end
  if best then return best end
  for _, name in ipairs(names) do -- "timeout" for timeout_ms, "gosip" for gossip_fanout.
    local stem = name:match "^[^_]+_"
    if stem and #stem > 4 and distance(lower, stem:sub(1, -2):lower(), 1) <= 1 and (not best or name < best) then best = name end
  end
  return best
end

return near
