--- The committed corpora of the fuzz targets, replayed by the ordinary build: what fuzzing has found stays found. `scripts/fuzz` looks
--- for more.
local build = os.getenv "SHOAL_BUILD" or "build/release"

local function lines_of(command)
  local out = {}
  local pipe = assert(io.popen(command .. " 2>&1"))
  for line in pipe:lines() do out[#out + 1] = line end
  return out, pipe:close()
end

describe("fuzz targets", function ()
  local targets = lines_of "LD_PRELOAD= scripts/fuzz --list" -- The sanitizers are for us, not for a shell.
  it("are listed", function () assert.is_true(#targets >= 6, table.concat(targets, " ")) end)
  for _, target in ipairs(targets) do
    it(("F70: %s takes its whole corpus"):format(target), function ()
      local said, ended = lines_of(("%s/spec/fuzz_%s spec/fuzz/corpus/%s"):format(build, target, target))
      local text = table.concat(said, "\n")
      assert.is_truthy(ended, text)
      local inputs = tonumber(text:match "^ok (%d+) inputs" or text)
      assert.is_true(inputs >= 5, text)
    end)
  end
end)
