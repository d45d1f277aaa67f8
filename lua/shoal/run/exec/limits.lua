--- exec.limits: what a job's `limits` had to do with an end, for people.
local limits = {}

local XCPU = 24 -- The signal at the CPU limit; a shell whose command got it exits with 128 more.
local SHOWN = { "cpu_s", "memory", "nofile" }
local NO_MEMORY = { "[Oo]ut of memory", "[Cc]annot allocate memory", "MemoryError", "bad_alloc", "not enough memory", "memory exhausted" }
local NO_FILES = { "[Tt]oo many open files", "EMFILE" }

--- Bytes for people, in the greatest unit that keeps them exact to a tenth.
function limits.size(bytes)
  for _, unit in ipairs { { "GiB", 1 << 30 }, { "MiB", 1 << 20 }, { "KiB", 1 << 10 } } do
    if bytes >= unit[2] then return ((("%.1f"):format(bytes / unit[2])):gsub("%.0$", "")) .. " " .. unit[1] end
  end
  return bytes .. " B"
end

local function text_of(name, value)
  if name == "cpu_s" then return ("cpu limit of %d s"):format(value) end
  if name == "memory" then return ("memory limit of %s"):format(limits.size(value)) end
  return ("limit of %d open files"):format(value)
end

local function says(text, patterns)
  for _, pattern in ipairs(patterns) do
    if text:find(pattern) then return true end
  end
  return false
end

--- The limit that this program met, as a format with a place for how it ended; nil when none is known to have been. The kernel ends a
--- program only for its CPU time: of memory and files it refuses more, and the program says so, if anybody does.
---@param set table?  the job's limits
---@param run { status: integer, signal: integer, head: string, tail: string }
---@param cpu_ms integer
---@return string? format
function limits.met(set, run, cpu_ms)
  if not set or run.status == 0 and run.signal == 0 then return nil end
  if set.cpu_s then
    local killed = (run.signal == 9 or run.status == 128 + 9) and cpu_ms >= set.cpu_s * 1000
    if run.signal == XCPU or run.status == 128 + XCPU or killed then return "was ended by its " .. text_of("cpu_s", set.cpu_s) end
  end
  local output = (run.head .. run.tail):sub(-2000)
  if set.memory and says(output, NO_MEMORY) then return "%s at its " .. text_of("memory", set.memory) end
  if set.nofile and says(output, NO_FILES) then return "%s at its " .. text_of("nofile", set.nofile) end
end

--- The limits that hold, for the reason of an end that may be due to one of them.
function limits.note(set)
  local out = {}
  for _, name in ipairs(set and SHOWN or {}) do
    if set[name] then out[#out + 1] = text_of(name, set[name]) end
  end
  return #out > 0 and " (under its " .. table.concat(out, ", ") .. ")" or ""
end

return limits
