--- A heap of sleepers, the earliest deadline first, equal ones in order of arrival. The sleepers are the tasks themselves (a task waits
--- for one thing at a time), so that sleeping allocates nothing: fields due_ns, due_seq, due_at (index in the heap).

local heap = {}

local function before(a, b)
  local x, y = a.due_ns, b.due_ns
  if x ~= y then return x < y end
  return a.due_seq < b.due_seq
end

local function up(h, at, item)
  while at > 1 do
    local parent_at = at // 2
    local parent = h[parent_at]
    if not before(item, parent) then break end
    h[at] = parent
    parent.due_at = at
    at = parent_at
  end
  h[at] = item
  item.due_at = at
end

local function down(h, at, item, count)
  while true do
    local child_at = at * 2
    if child_at > count then break end
    local child = h[child_at]
    if child_at < count and before(h[child_at + 1], child) then
      child_at = child_at + 1
      child = h[child_at]
    end
    if not before(child, item) then break end
    h[at] = child
    child.due_at = at
    at = child_at
  end
  h[at] = item
  item.due_at = at
end

---@param h table  an array; h.count is its length
function heap.push(h, item)
  local count = h.count + 1
  h.count = count
  up(h, count, item)
end

--- Remove an item that is in the heap.
function heap.remove(h, item)
  local at, count = item.due_at, h.count
  local last = h[count]
  h[count] = nil
  h.count = count - 1
  item.due_at = nil
  if last == item then return end
  if at > 1 and before(last, h[at // 2]) then up(h, at, last) else down(h, at, last, count - 1) end
end

return heap
