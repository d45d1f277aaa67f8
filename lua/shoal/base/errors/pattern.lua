--- pattern: Lua's find, match, gmatch and gsub, written in Lua, for code with a budget.
---
--- One call of the C functions cannot be interrupted, and a pattern of forty `a?` needs longer than the machine lives. Here
--- each step is an instruction, so the sandbox's budget covers it. A pattern that is certain to be quick goes to the C
--- function all the same: one without repetition, or with few repetitions over a short subject.
---
--- A port of lstrlib.c (Lua 5.4): the same results, spec/lua/pattern_spec.lua compares them.

local pattern = {}

local find, match, byte, sub = string.find, string.match, string.byte, string.sub
local concat = table.concat

local CAPTURES_MAX = 32
local DEPTH_MAX = 200      -- As LUAI_MAXCCALLS is to the C functions: more is "pattern too complex".
local QUICK_STEPS = 100000 -- The C function may take so many steps in the worst case.
local PLAIN_STEPS = 50000000 -- The same for a search of plain text, where a step is a byte of memcmp.

local ESCAPE, BRACKET, CLOSING, CARET, DOT, DOLLAR = 37, 91, 93, 94, 46, 36 -- % [ ] ^ . $
local OPEN, CLOSE, STAR, PLUS, MINUS, OPTION = 40, 41, 42, 43, 45, 63       -- ( ) * + - ?

local POSITION, UNCLOSED = -2, -1

local KNOWN_MAX = 512 -- Patterns whose repetitions are remembered.
local known, known_count = {}, 0

--- How many repetitions a pattern has.
local function repetitions(pat)
  local count = known[pat]
  if count then return count end
  count = 0
  for at = 1, #pat do
    local c = byte(pat, at)
    if c == STAR or c == PLUS or c == MINUS or c == OPTION or c == ESCAPE and byte(pat, at + 1) == 98 then -- %b scans too
      count = count + 1
    end
  end
  if known_count >= KNOWN_MAX then known, known_count = {}, 0 end
  known[pat], known_count = count, known_count + 1
  return count
end

--- Whether the C function ends soon whatever the subject holds: n^(repetitions + 1) steps at most.
local function quick(length, pat)
  local steps = length + 1
  for _ = 1, repetitions(pat) do
    steps = steps * (length + 1)
    if steps > QUICK_STEPS then return false end
  end
  return steps * (#pat + 1) <= QUICK_STEPS
end

--- The place behind the single character class at p.
local function class_end(pat, p)
  local c = byte(pat, p)
  if not c then error("malformed pattern (ends with '%')", 0) end
  p = p + 1
  if c == ESCAPE then
    if p > #pat then error("malformed pattern (ends with '%')", 0) end
    return p + 1
  end
  if c == BRACKET then
    if byte(pat, p) == CARET then p = p + 1 end
    repeat
      if p > #pat then error("malformed pattern (missing ']')", 0) end
      local inner = byte(pat, p)
      p = p + 1
      if inner == ESCAPE then p = p + 1 end
    until byte(pat, p) == CLOSING
    return p + 1
  end
  return p
end

--- Whether one character is of the class pat[p .. to - 1]: a pattern of one class, so the C function is quick.
local function single(m, s, p, to)
  local c = byte(m.subject, s)
  if not c then return false end
  local first = byte(m.pat, p)
  if first == DOT then return true end
  if first == ESCAPE or first == BRACKET then
    local class = sub(m.pat, p, to - 1)
    local of = m.classes[class]
    if not of then
      of = {}
      m.classes[class] = of
    end
    local is = of[c]
    if is == nil then
      is = find(sub(m.subject, s, s), "^" .. class) ~= nil
      of[c] = is
    end
    return is
  end
  return first == c
end

local function balanced(m, s, p)
  if p + 1 > #m.pat then error("malformed pattern (missing arguments to '%b')", 0) end
  local open, closing = byte(m.pat, p), byte(m.pat, p + 1)
  if byte(m.subject, s) ~= open then return nil end
  local depth, at = 1, s + 1
  while at <= #m.subject do
    local c = byte(m.subject, at)
    if c == closing then
      depth = depth - 1
      if depth == 0 then return at + 1 end
    elseif c == open then
      depth = depth + 1
    end
    at = at + 1
  end
  return nil
end

local do_match

local function expand_most(m, s, p, to)
  local count = 0
  while single(m, s + count, p, to) do count = count + 1 end
  while count >= 0 do
    local ending = do_match(m, s + count, to + 1)
    if ending then return ending end
    count = count - 1
  end
  return nil
end

local function expand_least(m, s, p, to)
  while true do
    local ending = do_match(m, s, to + 1)
    if ending then return ending end
    if not single(m, s, p, to) then return nil end
    s = s + 1
  end
end

local function start_capture(m, s, p, what)
  if m.level >= CAPTURES_MAX then error("too many captures", 0) end
  m.level = m.level + 1
  m.starts[m.level], m.lengths[m.level] = s, what
  local ending = do_match(m, s, p)
  if not ending then m.level = m.level - 1 end
  return ending
end

local function end_capture(m, s, p)
  for level = m.level, 1, -1 do
    if m.lengths[level] == UNCLOSED then
      m.lengths[level] = s - m.starts[level]
      local ending = do_match(m, s, p)
      if not ending then m.lengths[level] = UNCLOSED end
      return ending
    end
  end
  error("invalid pattern capture", 0)
end

local function match_capture(m, s, digit)
  local level = digit - 48
  if level < 1 or level > m.level or m.lengths[level] == UNCLOSED then
    error("invalid capture index %" .. level .. " in pattern", 0)
  end
  local length = m.lengths[level]
  if length < 0 then return nil end -- A position matches nothing.
  local text = sub(m.subject, m.starts[level], m.starts[level] + length - 1)
  if sub(m.subject, s, s + length - 1) == text then return s + length end
  return nil
end

--- -> the next place in subject and pattern where a plain loop goes on, or the end of a match, or nothing.
local function special(m, s, p)
  local after = byte(m.pat, p + 1)
  if after == 98 then -- b
    s = balanced(m, s, p + 2)
    if s then return s, p + 4 end
    return nil
  end
  if after == 102 then -- f
    p = p + 2
    if byte(m.pat, p) ~= BRACKET then error("missing '[' after '%f' in pattern", 0) end
    local to = class_end(m.pat, p)
    local class = sub(m.pat, p, to - 1)
    local before = s == 1 and "\0" or sub(m.subject, s - 1, s - 1)
    local here = s > #m.subject and "\0" or sub(m.subject, s, s)
    if not find(before, "^" .. class) and find(here, "^" .. class) then return s, to end
    return nil
  end
  if after and after >= 48 and after <= 57 then
    s = match_capture(m, s, after)
    if s then return s, p + 2 end
  end
  return nil
end

local function is_special(c) return c == 98 or c == 102 or c and c >= 48 and c <= 57 end

local function default(m, s, p)
  local to = class_end(m.pat, p)
  local suffix = byte(m.pat, to)
  if suffix == OPTION then
    if single(m, s, p, to) then
      local ending = do_match(m, s + 1, to + 1)
      if ending then return nil, nil, ending end
    end
    return s, to + 1
  end
  if suffix == PLUS then return nil, nil, single(m, s, p, to) and expand_most(m, s + 1, p, to) or nil end
  if suffix == STAR then return nil, nil, expand_most(m, s, p, to) end
  if suffix == MINUS then return nil, nil, expand_least(m, s, p, to) end
  if single(m, s, p, to) then return s + 1, to end
  return nil
end

--- -> the place behind the match of pat[p ..] at subject[s ..], or nil.
local function run(m, s, p)
  while p <= #m.pat do
    local c = byte(m.pat, p)
    if c == OPEN then
      if byte(m.pat, p + 1) == CLOSE then return start_capture(m, s, p + 2, POSITION) end
      return start_capture(m, s, p + 1, UNCLOSED)
    elseif c == CLOSE then
      return end_capture(m, s, p + 1)
    elseif c == DOLLAR and p == #m.pat then
      return s == #m.subject + 1 and s or nil
    end
    local ending
    if c == ESCAPE and is_special(byte(m.pat, p + 1)) then s, p = special(m, s, p) else s, p, ending = default(m, s, p) end
    if not s then return ending end
  end
  return s
end

function do_match(m, s, p)
  m.depth = m.depth + 1
  if m.depth > DEPTH_MAX then error("pattern too complex", 0) end
  local ending = run(m, s, p)
  m.depth = m.depth - 1
  return ending
end

local function new(subject, pat)
  return { subject = subject, pat = pat, level = 0, depth = 0, starts = {}, lengths = {}, classes = {} }
end

local function attempt(m, s, p)
  m.level, m.depth = 0, 0
  return do_match(m, s, p)
end

local function capture(m, index, s, ending)
  if index > m.level then
    if index == 1 then return sub(m.subject, s, ending - 1) end
    error("invalid capture index %" .. index, 0)
  end
  local length = m.lengths[index]
  if length == UNCLOSED then error("unfinished capture", 0) end
  if length == POSITION then return m.starts[index] end
  return sub(m.subject, m.starts[index], m.starts[index] + length - 1)
end

--- -> a list of the captures, or of the whole match when there are none and `whole` is set.
local function captures(m, s, ending, whole)
  local out, count = {}, m.level
  if count == 0 and whole then count = 1 end
  for i = 1, count do out[i] = capture(m, i, s, ending) end
  return out, count
end

local function begin(length, init)
  init = init or 1
  if init < 0 then init = math.max(length + init + 1, 1) elseif init == 0 then init = 1 end
  return init
end

local function check(name, subject, pat)
  if type(subject) == "number" then subject = tostring(subject) end
  if type(pat) == "number" then pat = tostring(pat) end
  if type(subject) ~= "string" or type(pat) ~= "string" then
    error(name .. ": expected a string and a pattern, found " .. type(subject) .. " and " .. type(pat), 3)
  end
  return subject, pat
end

local function search(subject, pat, init, finding)
  local anchored = byte(pat, 1) == CARET
  local m, s, p = new(subject, pat), init, anchored and 2 or 1
  repeat
    local ending = attempt(m, s, p)
    if ending then
      local list, count = captures(m, s, ending, not finding)
      if finding then return s, ending - 1, table.unpack(list, 1, count) end
      return table.unpack(list, 1, count)
    end
    s = s + 1
  until s > #subject + 1 or anchored
  return nil
end

--- The C function compares at each place where the first byte fits, in one call.
local function find_plain(subject, text, init)
  if #subject * #text <= PLAIN_STEPS then return find(subject, text, init, true) end
  local at, first = begin(#subject, init), sub(text, 1, 1)
  local last = #subject - #text + 1
  while at <= last do
    at = find(subject, first, at, true)
    if not at or at > last then return nil end
    if sub(subject, at, at + #text - 1) == text then return at, at + #text - 1 end
    at = at + 1
  end
  return nil
end

function pattern.find(subject, pat, init, plain)
  subject, pat = check("find", subject, pat)
  if plain then return find_plain(subject, pat, init) end
  if quick(#subject, pat) then return find(subject, pat, init, plain) end
  init = begin(#subject, init)
  if init > #subject + 1 then return nil end
  return search(subject, pat, init, true)
end

function pattern.match(subject, pat, init)
  subject, pat = check("match", subject, pat)
  if quick(#subject, pat) then return match(subject, pat, init) end
  init = begin(#subject, init)
  if init > #subject + 1 then return nil end
  return search(subject, pat, init, false)
end

function pattern.gmatch(subject, pat, init)
  subject, pat = check("gmatch", subject, pat)
  local m, s, last = new(subject, pat), begin(#subject, init), nil
  return function ()
    while s <= #subject + 1 do
      local ending = attempt(m, s, 1)
      if ending and ending ~= last then
        local list, count = captures(m, s, ending, true)
        s, last = ending, ending
        return table.unpack(list, 1, count)
      end
      s = s + 1
    end
    return nil
  end
end

--- What a replacement gives for one match; false or nil: the match itself.
local function replaced(m, s, ending, with)
  local kind = type(with)
  local value
  if kind == "function" then
    local list, count = captures(m, s, ending, true)
    value = with(table.unpack(list, 1, count))
  elseif kind == "table" then
    value = with[capture(m, 1, s, ending)]
  else
    local out, at = {}, 1
    while true do
      local mark = find(with, "%", at, true)
      if not mark then break end
      out[#out + 1] = sub(with, at, mark - 1)
      local c = sub(with, mark + 1, mark + 1)
      if c == "%" then
        out[#out + 1] = "%"
      elseif c == "0" then
        out[#out + 1] = sub(m.subject, s, ending - 1)
      elseif c ~= "" and find("123456789", c, 1, true) then
        out[#out + 1] = capture(m, byte(c) - 48, s, ending)
      else
        error("invalid use of '%' in replacement string", 0)
      end
      at = mark + 2
    end
    out[#out + 1] = sub(with, at)
    return concat(out)
  end
  if not value then return sub(m.subject, s, ending - 1) end
  if type(value) ~= "string" and type(value) ~= "number" then
    error("invalid replacement value (a " .. type(value) .. ")", 0)
  end
  return value
end

--- `room(bytes)` raises when the result grows too long.
function pattern.gsub(room)
  return function (subject, pat, with, most)
    subject, pat = check("gsub", subject, pat)
    if type(with) == "number" then with = tostring(with) end
    local kind = type(with)
    if kind ~= "string" and kind ~= "function" and kind ~= "table" then
      error("gsub: expected a string, function or table as the replacement, found " .. kind, 2)
    end
    local anchored = byte(pat, 1) == CARET
    local m, s, p, last = new(subject, pat), 1, anchored and 2 or 1, nil
    local out, count, size = {}, 0, 0
    local function put(piece)
      size = size + #tostring(piece)
      room(size)
      out[#out + 1] = piece
    end
    while count < (most or #subject + 1) do
      local ending = attempt(m, s, p)
      if ending and ending ~= last then
        count = count + 1
        put(replaced(m, s, ending, with))
        s, last = ending, ending
      elseif s <= #subject then
        put(sub(subject, s, s))
        s = s + 1
      else
        break
      end
      if anchored then break end
    end
    if s <= #subject then put(sub(subject, s)) end
    return concat(out), count
  end
end

return pattern
