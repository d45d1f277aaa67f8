--- The library's Lua is compiled at build. An edit of a source takes effect; without edits the program reads no source.
local child = require "spec.support.child"

local home, restore
setup(function () restore = child.without_preload() end)
teardown(function () restore() end)

local function sh(line)
  local pipe = assert(io.popen(line .. " 2>&1"))
  local text = pipe:read "a"
  return text, pipe:close()
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

--- The output of a program with this home for a Lua text.
local function run(text)
  write(home .. "/ask.lua", text)
  return (sh(("SHOAL_HOME=%s %s lua %s/ask.lua"):format(home, child.PROGRAM, home)))
end

local ASK = [[print(require("shoal.base.backoff").mark) return 0]]
local SOURCE = "/lua/shoal/base/backoff.lua"

--- Replace the first `return backoff` by one that marks the module, in a source of the same size.
local function edit(mark)
  local file = assert(io.open(home .. SOURCE))
  local text = file:read "a"
  file:close()
  local size = #text
  text = text:gsub("^%-%-[^\n]*", "--", 1):gsub("return backoff", ("backoff.mark = %q return backoff"):format(mark), 1)
  assert(#text <= size, "the comment was too short to make room")
  write(home .. SOURCE, text:gsub("^%-%-", "--" .. ("-"):rep(size - #text)), 1)
  local after = assert(io.open(home .. SOURCE))
  assert.equal(size, #after:read "a")
  after:close()
end

before_each(function ()
  home = os.tmpname()
  os.remove(home)
  assert(select(2, sh(("mkdir %s && cp -a lua scripts %s/"):format(home, home))))
end)
after_each(function () sh("rm -rf " .. home) end)

describe("a module of the library", function ()
  it("is the one that the build compiled, while its source has the same size and time", function ()
    sh(("touch -r %s%s %s/time"):format(home, SOURCE, home))
    edit "edited"
    sh(("touch -r %s/time %s%s"):format(home, home, SOURCE))
    assert.equal("nil\n", run(ASK)) -- The edit kept size and time, which no editor does, so the source was not read.
  end)

  it("is read anew as soon as it was edited, even to the same size", function ()
    edit "edited"
    assert.equal("edited\n", run(ASK))
  end)

  it("is read anew when its size is another, whatever its time says", function ()
    local line = "touch -r SOURCE HOME/time; printf 'return { mark = 5 }' > SOURCE; touch -r HOME/time SOURCE"
    sh((line:gsub("SOURCE", home .. SOURCE):gsub("HOME", home)))
    assert.equal("5\n", run(ASK))
  end)

  it("is the compiled one when its source was only copied, and tells its lines at its own place", function ()
    sh(("find %s/lua -name '*.lua' -exec touch {} +"):format(home))
    local out = run [[
      local schema = require "shoal.base.schema"
      local about = debug.getinfo(schema.integer, "S")
      print(about.source, about.linedefined) return 0]]
    assert.matches("^@" .. home:gsub("%p", "%%%0") .. "/lua/shoal/base/schema.lua\t%d+\n$", out)
    local line, number = tonumber(out:match "\t(%d+)\n"), 0
    for text in io.lines(home .. "/lua/shoal/base/schema.lua") do
      number = number + 1
      if number == line then assert.matches("function schema.integer", text) end
    end
  end)

  it("that is broken by an edit says where", function ()
    write(home .. SOURCE, "local x = \n")
    assert.matches("backoff.lua:2: unexpected symbol near <eof>", run(ASK))
  end)

  it("is not taken when another place comes first in package.path", function ()
    sh(("mkdir -p %s/other/shoal/base; printf 'return { mark = 7 }' > %s/other/shoal/base/backoff.lua"):format(home, home))
    local first = "package.path = '%s/other/?.lua;' .. package.path; package.loaded['shoal.base.backoff'] = nil "
    assert.equal("7\n", run(first:format(home) .. ASK))
  end)

  it("that is gone from there is looked for elsewhere", function ()
    os.remove(home .. SOURCE)
    assert.matches("module 'shoal.base.backoff' not found", run(ASK))
  end)
end)
