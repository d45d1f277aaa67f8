--- The counts of sites: read, summed, and held against raised = reported + suppressed + handled.

local totals = {}

--- One site's.
function totals.of(record)
  return { site = record.name, raised = record.raised, reported = record.reported, suppressed = record.suppressed,
    handled = record.handled, in_flight = record.in_flight, missing_ids = record.missing }
end

--- Every site's where something was raised, sorted by name.
---@param by_c integer  incidents that C reported by itself: they are added at door.sink
function totals.all(catalogue, by_c)
  local out = {}
  for _, name in ipairs(catalogue:names()) do
    local record = catalogue.records[name]
    local added = name == "door.sink" and by_c or 0
    if record.raised + added > 0 then
      local count = totals.of(record)
      count.raised, count.reported = count.raised + added, count.reported + added
      out[#out + 1] = count
    end
  end
  return out
end

---@return true? ok
---@return string? err  each site where the balance does not hold
function totals.balance(counts)
  local wrong = {}
  for _, c in ipairs(counts) do
    if c.raised ~= c.reported + c.suppressed + c.handled or c.in_flight ~= 0 then
      wrong[#wrong + 1] = string.format("%s: raised %d, reported %d, suppressed %d, handled %d, in flight %d", c.site,
        c.raised, c.reported, c.suppressed, c.handled, c.in_flight)
    end
  end
  if #wrong == 0 then return true end
  return nil, table.concat(wrong, "\n")
end

--- The sums in one line.
function totals.summary(counts)
  local raised, reported, suppressed, handled, sites = 0, 0, 0, 0, 0
  for _, c in ipairs(counts) do
    raised, reported, suppressed, handled = raised + c.raised, reported + c.reported, suppressed + c.suppressed,
      handled + c.handled
    sites = sites + 1
  end
  return string.format("errors: raised = reported + suppressed + handled: %d %s %d + %d + %d at %d sites", raised,
    raised == reported + suppressed + handled and "=" or "IS NOT", reported, suppressed, handled, sites)
end

return totals
