--- The lint of shoal's own rules: what the compiler and luacheck cannot see. `scripts/lint` runs it.
---
--- It refuses protected calls outside the doors, lower rooms that name higher ones, clocks and chance outside the world,
--- `pairs` order that nobody vouched for, dropped refusals, misspelt sites, prints outside the one writer, and files that
--- have a second subject.
--- A finding says file:line, what is wrong, and what to do.

local errors = require "shoal.base.errors"
local rules = require "shoal.lint.rules"
local scan = require "shoal.lint.scan"

local lint = {}

local sites = {
  has = errors.is_site,
  unknown = function (name)
    local near = errors.nearest(name)
    return "no site is named " .. name .. (near and ", did you mean " .. near .. "?" or "")
      .. ": declare it in lua/shoal/base/sites.lua"
  end,
}

local lua_rules = { "rooms", "door", "world", "luv", "json", "order", "taken", "sites", "printing" }
local c_rules = { "floors", "door", "world", "taken", "sites" }

--- The kind of a source file: by its name, or by its first line.
---@return "lua"|"c"|nil
function lint.kind(path, text)
  if path:find "%.lua$" or path:find "%.luacheckrc$" or path:find "%.busted$" then return "lua" end
  if path:find "%.[ch]$" then return "c" end
  if text:match "^#![^\n]*lua" then return "lua" end
  return nil
end

--- Lint one file.
---@param path string  from the project's root: "lua/shoal/base/task.lua"
---@param text string
---@return { path: string, line: integer, rule: string, message: string }[]
function lint.file(path, text)
  local kind = lint.kind(path, text)
  local source = kind == "c" and scan.c(path, text) or scan.lua(path, text)
  local findings = {}
  local function run(name, rule)
    rule(source, function (offset, message)
      findings[#findings + 1] = { path = path, line = scan.line_of(source, offset), rule = name, message = message }
    end, sites)
  end
  run("size", rules.size)
  if kind == "lua" then
    for _, name in ipairs(lua_rules) do run(name, rules.lua[name]) end
  elseif kind == "c" then
    for _, name in ipairs(c_rules) do run(name, rules.c[name]) end
  end
  table.sort(findings, function (a, b)
    if a.line ~= b.line then return a.line < b.line end
    return a.rule .. a.message < b.rule .. b.message
  end)
  return findings
end

--- A finding as a line: "lua/shoal/x.lua:12: [door] pcall outside ...".
function lint.format(finding)
  return finding.path .. ":" .. finding.line .. ": [" .. finding.rule .. "] " .. finding.message
end

return lint
