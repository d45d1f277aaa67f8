--- F72: real processes, a real disk, kill -9: every acknowledged command is there afterwards, at its index.
local folder = os.tmpname()
os.remove(folder)

local function child(...)
  local command = table.concat({ "exec lua5.4 spec/support/tier_child.lua", folder, ... }, " ")
  local lines, pipe = {}, assert(io.popen(command .. " 2>&1"))
  for line in pipe:lines() do lines[#lines + 1] = line end
  pipe:close() -- Its status is the kill's.
  return lines
end

describe("a tier of one, killed", function ()
  teardown(function () os.execute("rm -rf " .. folder) end)

  it("F72: keeps every acknowledged command, over five kills in the middle of writing", function ()
    local acknowledged, count, last_fence = {}, 0, 0
    for run, after_ms in ipairs { 60, 90, 40, 120, 75 } do
      for _, line in ipairs(child("write", run, after_ms)) do
        local index, command = line:match "^acknowledged (%d+) (.+)$"
        local fence = line:match "^lead (%d+)$"
        assert.truthy(index or fence, line)
        index, fence = math.tointeger(index), math.tointeger(fence)
        if fence then
          assert.is_true(fence > last_fence)
          last_fence = fence
        else
          assert.is_true(index > last_fence)
          acknowledged[index], count = command, count + 1
        end
      end
      local found, last = {}, 0
      for _, line in ipairs(child "read") do
        local index, command = line:match "^applied (%d+) (.+)$"
        assert.truthy(index, line)
        index = math.tointeger(index)
        assert.is_true(index > last, "indexes rise")
        found[index], last = command, index
      end
      for index, command in pairs(acknowledged) do assert.equal(command, found[index]) end
      last_fence = math.max(last_fence, last)
    end
    assert.is_true(count > 100, count .. " acknowledged")
  end)
end)
