--- Walk a table in one order, the same in every process: numbers first, then strings, each ascending; then the rest
--- (booleans: false, true). `pairs` has another order in every process, so nothing that is written, sent or decided
--- may depend on it.
---
---   for key, value in sorted(t) do ... end
---
--- It walks a snapshot of the keys: adding or removing entries on the way is safe; a removed entry is skipped.

local rank = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local ra, rb = rank[type(a)], rank[type(b)]
  if ra ~= rb then return ra < rb end
  if ra == 3 then return not a and b end
  return a < b
end

--- The keys of `t`, in order. A key that has no order (a table, a function) raises: it has no place in a walk that
--- must be the same everywhere.
---@param t table
---@return any[] keys
local function keys_of(t)
  local keys, n, kind, mixed = {}, 0, nil, false
  for key in next, t do -- order-free: sorted below
    local of = type(key)
    if of ~= kind then
      if not rank[of] then error("sorted: a " .. of .. " as a key has no order", 3) end
      mixed, kind = kind ~= nil, of
    end
    n = n + 1
    keys[n] = key
  end
  if n < 2 then return keys end
  if mixed or kind == "boolean" then table.sort(keys, before) else table.sort(keys) end -- Without a function it is several times as fast.
  return keys
end

local sorted = { keys = keys_of }

return setmetatable(sorted, {
  ---@param t table
  ---@return fun(): any, any
  __call = function (_, t)
    local keys, i = keys_of(t), 0
    return function ()
      while true do
        i = i + 1
        local key = keys[i]
        if key == nil then return nil end
        local value = t[key]
        if value ~= nil then return key, value end
      end
    end
  end,
})
