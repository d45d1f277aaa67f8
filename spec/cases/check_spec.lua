--- `shoal check` is the start-up check: what run, up and submit refuse, it says, all at once, with file, line, what was found, what was
--- expected and the nearest name; and they refuse what it refuses. Cases retold from what users of this and of like systems met.
local cluster = require "spec.support.cluster"
local verify = require "shoal.cli.verify"

describe("shoal check", function ()
  local c

  before_each(function () c = cluster.new() end)
  after_each(function () c:close() end)

  --- The lines that a check of this text says; its folder is left out. "" where it is right.
  local function said(name, text, files)
    for other, bytes in pairs(files or {}) do c:file(other, bytes) end -- order-free: files
    local what, err = verify.file(c:file(name, text))
    return what and "" or (err:gsub(c.dir:gsub("%p", "%%%0") .. "/", "")), what
  end

  --- The line on which these words stand.
  local function line_of(text, words)
    local _, breaks = text:sub(1, assert(text:find(words, 1, true), words)):gsub("\n", "")
    return breaks + 1
  end

  --- Each text is said to be wrong in these words.
  local function refuses(name, text, ...)
    local lines = said(name, text)
    assert.is_not.equal("", lines, "nothing was said of:\n" .. text)
    for _, words in ipairs { ... } do assert.is_truthy(lines:find(words, 1, true), ("expected %q in:\n%s"):format(words, lines)) end
    return lines
  end

  local function edited(path, from, to)
    local text = cluster.read(path)
    local at, stop = text:find(from, 1, true)
    assert(at, from)
    return text:sub(1, at - 1) .. to .. text:sub(stop + 1)
  end

  local WORKER = "scripts/roles/worker.lua"
  local ROLES = {
    { "a hook's name", '["swim.member"]', '["swim.membre"]', "w.lua:@: hooks: no hook is named swim.membre, did you mean swim.member?" },
    { "a hook's arity", "function (event)", "function (event, more)",
      "w.lua:@: hooks: swim.member: the function at ",
      "takes 2 arguments, but the site gives 1: function (event)" },
    { "a hook that nothing fires", '["swim.member"]', '["tier.on_lead"]', "w.lua:@: hooks: no hook is named tier.on_lead",
      "there are: correlation.detected, " },
    { "a message's name", '["part.cancel"]', '["part.cancle"]',
      "w.lua:@: answers: there is no message part.cancle, did you mean part.cancel?" },
    { "a missing answer", '["lead"] = function (state, body) return state.worker:lead(body) end,', "",
      "w.lua:@: worker does not handle lead, which gate, manager may send", at = "role.answers" },
    { "an unknown send", '"lead.who" }', '"lead.whom" }', "w.lua:@: sends: there is no message lead.whom, did you mean lead.who?" },
    { "a forbidden send", '"lead.who" }', '"lead.who", "job.submit" }', "w.lua:@: worker sends job.submit, which comes only from client" },
    { "a forbidden answer", '["lead"] =', '["job.submit"] = function () end, ["lead"] =',
      "w.lua:@: worker handles job.submit, which goes only to" },
    { "the role's name", 'name = "worker"', 'name = "wroker"',
      'w.lua:@: name: there is no role "wroker", did you mean worker?; expected one of' },
    { "the key answer for answers", "role.answers", "role.answer", "w.lua:@: answer: a role has no such key, did you mean answers?",
      "does not handle part.dispatch" },
    { "an answer's arity", 'function (state, body) return state.worker:cancel', 'function (state, body, peer, more) return state.worker:cancel',
      'w.lua:@: answers["part.cancel"]: the function takes 4 arguments, expected (state, body, peer)' },
    { "a start that returns nothing", "  return state\nend", "end", "w.lua:@: role: start returned nothing: expected the role's state",
      at = "function role.start" },
    { "a start that raises", "local state = {", "local x = nil + 1\n  local state = {",
      "w.lua:@: start: attempt to perform arithmetic on a nil value" },
    { "a start that never ends", "local state = {", "while true do end\n  local state = {", "w.lua:@: start: it ran 50000000 instructions" },
    { "a start that takes memory without end", "local state = {",
      "local t = {} while true do t[#t + 1] = ('x'):rep(1000000) end\n  local state = {",
      "w.lua: it takes more than 67108864 bytes of memory" },
    { "stop's name", "role.stop", "role.stpo", "w.lua:@: stpo: a role has no such key, did you mean stop?" },
    { "stop's arity", "role.stop(state)", "role.stop(state, why)", "w.lua:@: stop: the function takes 2 arguments, expected (state)" },
    { "a stop that raises", "state.worker:close(2000)", 'error "no way out"', "w.lua:@: no way out" },
    { "a file without return", "\nreturn role\n", "\n",
      "w.lua: expected the script to return a table, found nil; a role's last line is `return role`" },
    { "a top level that never ends", "local role", "while true do end\nlocal role", "w.lua:@: it ran 50000000 instructions" },
    { "a global that is none", "local state = {", "local s = strng.format('x')\n  local state = {",
      'w.lua:@: there is no global strng; did you mean "string"?' },
    { "a key of its table twice", '["lead"] =', '["part.cancel"] = function () end, ["lead"] =',
      "w.lua:@: part.cancel: given twice, first on line " },
    { "a start whose handler never ends", "local state = {",
      "error(select(2, xpcall(function () while true do end end, function () while true do end end)))\n  local state = {",
      "start: w.lua:@: it ran 50000000 instructions" },
  }
  describe("of a role script tells", function ()
    for _, row in ipairs(ROLES) do
      it(row[1], function ()
        local text = edited(WORKER, row[2], row[3])
        local place, words = ("w.lua:%d:"):format(line_of(text, row.at or row[3])), {}
        for i = 4, #row do words[i - 3] = row[i]:gsub("w%.lua:@:", place) end
        refuses("w.lua", text, table.unpack(words))
      end)
    end

    it("several mistakes at once, each with its line", function ()
      local text = edited(WORKER, '["part.cancel"]', '["part.cancle"]'):gsub("role.stop", "role.stpo"):gsub('"lead.who" }', '"lead.whom" }')
      refuses("w.lua", text, ("w.lua:%d: answers"):format(line_of(text, "part.cancle")), ("w.lua:%d: stpo"):format(line_of(text, "stpo")),
        ("w.lua:%d: sends"):format(line_of(text, "lead.whom")), "worker does not handle part.cancel")
    end)

    it("and loads it where nothing happens: no file is written, no socket opened", function ()
      local trace = c.dir .. "/ran"
      local text = edited(WORKER, "local role", ("local f = io.open(%q, 'w')\nf:close()\nlocal role"):format(trace))
      local lines, what = said("w.lua", text)
      assert.equal("", lines)
      assert.matches("it was not tried: .*io.open: not in a simulated node", what)
      assert.is_nil(io.open(trace))
    end)

    it("as shoal run does, with the same lines and exit code 2", function ()
      for _, row in ipairs { ROLES[4], ROLES[12], ROLES[18], ROLES[19] } do
        local path = c:file("w.lua", edited(WORKER, row[2], row[3]))
        local check, run = c:shoal { "check", path }, c:shoal { "run", path, "--join", "127.0.0.1:1" }
        assert.same({ 2, 2 }, { check.code, run.code }, run.err)
        assert.equal("shoal: " .. check.err, run.err)
      end
    end)
  end)
end)
