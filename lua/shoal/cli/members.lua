--- shoal members: the nodes that one node knows, and how.
local ask = require "shoal.cli.ask"
local common = require "shoal.cli.common"

return ask.command {
  example = "shoal members --connect 127.0.0.1:7000",
  query = function () return "node.members", {} end,
  text = function (reply)
    local rows = { { "NODE", "ROLE", "DC", "STATE", "ADDRESS", "SEEN BY" } }
    for _, m in ipairs(reply.members) do rows[#rows + 1] = { m.name, m.role, m.dc ~= "" and m.dc or "-", m.state, m.address, m.via } end
    return common.columns(rows)
  end,
}
