--- shoal incidents: what went wrong on a node, newest last, each with its ids.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"
local sorted = require "shoal.base.sorted"

return ask.command {
  example = "shoal incidents --connect 127.0.0.1:7001 -n 20",
  words = function (command)
    command:option("-n --max", "how many at most"):default("50"):argname("COUNT")
      :convert(common.integer("--max", "a whole number", 1))
  end,
  query = function (args) return "node.incidents", { max = args.max } end,
  text = function (reply)
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
