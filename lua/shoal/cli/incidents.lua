--- shoal incidents: what went wrong on a node, newest last, each with its ids; or how often, by site.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"
local sorted = require "shoal.base.sorted"

local function counted(reply)
  local rows = { { "SITE", "RAISED", "REPORTED", "SUPPRESSED", "HANDLED", "IN FLIGHT" } }
  for i, c in ipairs(reply.counts) do rows[i + 1] = { c.site, c.raised, c.reported, c.suppressed, c.handled, c.in_flight } end
  return (#reply.counts > 0 and common.columns(rows) .. "\n" or "")
    .. (reply.balanced and "raised = reported + suppressed + handled holds at every site" or "NOT balanced: a bug of shoal")
end

return ask.command {
  example = "shoal incidents --connect 127.0.0.1:7001 -n 20",
  words = function (command)
    command:option("-n --max", "how many at most; default: 50"):argname("COUNT")
      :convert(common.integer("--max", "a whole number", 1, 100000))
    command:flag("--counts", "print how often each site raised, and whether the counts balance")
  end,
  clashes = { { "counts", "max", "counts are of every site" } },
  query = function (args)
    if args.counts then return "node.counts", {} end
    return "node.incidents", { max = args.max or 50 }
  end,
  text = function (reply)
    if reply.counts then return counted(reply) end
    if #reply.incidents == 0 then return "no incidents" end
    local lines = {}
    for _, i in ipairs(reply.incidents) do
      local ids = {}
      for key, value in sorted(i.ids) do ids[#ids + 1] = key .. "=" .. value end
      lines[#lines + 1] = ("%s  %-8s %s  %s\n    %s%s"):format(i.id, i.level, i.site, i.message,
        table.concat(ids, " "), i.where ~= "" and "  at " .. i.where or "")
    end
    return table.concat(lines, "\n")
  end,
}
