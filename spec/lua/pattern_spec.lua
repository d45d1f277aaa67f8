--- The sandbox's pattern functions beside the C ones they are a port of.
local errors = require "shoal.errors"
local pattern = require "shoal.base.errors.pattern"

local gsub = pattern.gsub(function () end)

local function outcome(fn, ...)
  local results = table.pack(errors.handle("spec.pattern", nil, fn, ...))
  if not results[1] then return { false } end
  return results
end

local function all(iterator, ...)
  local ok, next_one = errors.handle("spec.pattern", nil, iterator, ...)
  if not ok then return { false } end
  local out = {}
  while true do
    local captures = table.pack(errors.handle("spec.pattern", nil, next_one))
    if not captures[1] then return { false } end
    if captures[2] == nil then return out end
    out[#out + 1] = captures
  end
end

local function same(subject, pat)
  local what = ("%q with %q"):format(subject, pat)
  assert.same(outcome(string.find, subject, pat), outcome(pattern.find, subject, pat), "find " .. what)
  assert.same(outcome(string.match, subject, pat), outcome(pattern.match, subject, pat), "match " .. what)
  assert.same(outcome(string.find, subject, pat, -3), outcome(pattern.find, subject, pat, -3), "find from the end " .. what)
  assert.same(all(string.gmatch, subject, pat), all(pattern.gmatch, subject, pat), "gmatch " .. what)
  for _, with in ipairs { "<%0>", "%1%%", "x" } do
    assert.same(outcome(string.gsub, subject, pat, with), outcome(gsub, subject, pat, with), "gsub " .. what .. " by " .. with)
  end
  assert.same(outcome(string.gsub, subject, pat, { a = "A", b = false }, 2), outcome(gsub, subject, pat, { a = "A", b = false }, 2))
  local function fn(a, b) return b or a == "a" and "!" or nil end
  assert.same(outcome(string.gsub, subject, pat, fn), outcome(gsub, subject, pat, fn), "gsub by a function " .. what)
end

--- Long enough that nothing of it goes to the C functions.
local FILLER = ("ab(a1]b%)"):rep(40)

describe("patterns in Lua", function ()
  it("give what the C functions give, for every kind of item", function ()
    for _, pat in ipairs {
      "", "a", ".", "a*", "a+", "a-b", "a?b", "^a", "b$", "^$", "[ab]+", "[^ab]", "[a-c1-3]*", "[%]]", "[%a%d]", "[]]", "[^]]", "%a+",
      "(a)(b)", "()a()", "(a*(b))", "%b()", "%f[%w]%w+", "%f[^%w]", "(.)%1", "%.%a", "(%w+)=(%w*)", ".-", "(.-)b", "%%", "a%$", "^(a)(.-)$",
    } do
      for _, subject in ipairs { "", "a", "ab", "aab", "(a(b)c)", "key=value", "x.y%z$", "aa11bb]]", "\0a\0" } do
        same(subject, pat)
      end
      same(FILLER, pat)
    end
  end)

  it("refuse what the C functions refuse", function ()
    for _, pat in ipairs { "%", "[a", "(a", "a)", "%1", "(%1)", "%f", "%ba", "[", "[^", "[%", "(()", "%0", ("(a)"):rep(33) } do
      same("abc", pat)
      same(FILLER, pat)
    end
  end)

  it("agree on 4,000 random patterns over random subjects", function ()
    local draw = 12345
    local function pick(list)
      draw = (draw * 1103515245 + 12345) % (1 << 31)
      return list[draw // 65536 % #list + 1]
    end
    local items = { "a", "b", ".", "%a", "%d", "[ab]", "[^a]", "(", ")", "()", "%1", "%b()", "%f[%a]", "x" }
    local suffixes = { "", "", "*", "+", "-", "?" }
    for _ = 1, 4000 do
      local parts, subject = {}, {}
      for i = 1, pick { 1, 2, 3, 4 } do parts[i] = pick(items) .. pick(suffixes) end
      for i = 1, pick { 0, 3, 8, 12 } do subject[i] = pick { "a", "b", "1", "(", ")", "x" } end
      local pat = pick { "", "", "^" } .. table.concat(parts) .. pick { "", "", "$" }
      local text = table.concat(subject)
      assert.same(outcome(string.find, text, pat), outcome(pattern.find, text, pat), text .. " with " .. pat)
      assert.same(outcome(string.gsub, text, pat, "<%0>"), outcome(gsub, text, pat, "<%0>"), text .. " with " .. pat)
      local long = text .. ("c"):rep(40)
      assert.same(outcome(string.find, long, pat), outcome(pattern.find, long, pat), text .. "ccc... with " .. pat)
    end
  end)
end)
