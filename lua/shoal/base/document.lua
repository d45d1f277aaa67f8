--- document: the bytes of a file that somebody wrote, made ready to be read; or what the file is instead.
---
---     local bytes, err = document.open(bytes, "job.lua", { noun = "a job", forms = "Lua or JSON" })
---
--- A byte order mark is skipped, as Lua's own loader does, and so is a first line `#!` that names lua or shoal (its line still counts).
--- CRLF ends a line like LF. What is no text of Lua or JSON is refused by what it is: empty, binary, UTF-16, a script of a shell, YAML.
local document = {}

local UTF8_MARK = "\239\187\191"
local SIGNATURES = {
  { "^\27Lua", "compiled Lua (bytecode); expected its source" },
  { "^\255\254", "UTF-16 text; expected UTF-8" }, { "^\254\255", "UTF-16 text; expected UTF-8" },
  { "^\127ELF", "a program (ELF)" }, { "^\31\139", "compressed (gzip)" }, { "^PK\3\4", "a zip archive" },
}

--- Whether a text that is no Lua reads as YAML: a line `key: value`, `- item` or `---`, and none that Lua would have.
local function is_yaml(bytes)
  local keys = 0
  for line in (bytes .. "\n"):gmatch "([^\n]*)\n" do
    line = line:gsub("\r$", "")
    if line:find "^%s*return%f[%W]" or line:find "^%s*local%f[%W]" or line:find "^%s*function%f[%W]" then return false end
    if line:find "^%-%-%-%s*$" or line:find "^%s*%- " or line:find "^%s*[%w_\"'-]+:%s" or line:find "^%s*[%w_\"'-]+:$" then keys = keys + 1 end
  end
  return keys > 0
end

--- Whether it reads as TOML or an ini file: a line `[section]`.
local function is_sections(bytes) return ("\n" .. bytes):find "\n%s*%[%[?[%w_.-]+%]%]?%s*\r?\n" ~= nil end

--- Whether it is markup: `<?xml`, `<!DOCTYPE`, `<html>`.
local function is_markup(bytes) return bytes:find "^%s*<[!?%a]" ~= nil end

--- A single value that JSON has and Lua does not return by itself.
local function bare_value(bytes)
  local word = bytes:match "^%s*(%S+)%s*$"
  if word and (word == "null" or word == "true" or word == "false" or tonumber(word)) then return word end
  return bytes:match '^%s*"[^"\n]*"%s*$' and "a string" or nil
end

--- What a text is that does not compile as Lua, in words; nil when it is probably Lua with a mistake.
---@param bytes string
---@param what { noun: string, forms: string }
---@return string?
function document.other(bytes, what)
  local kind = is_markup(bytes) and "XML or HTML" or bare_value(bytes) and "the JSON value " .. bare_value(bytes) or is_yaml(bytes) and "YAML"
    or is_sections(bytes) and "TOML or an ini file"
  return kind and ("this is %s; %s is %s"):format(kind, what.noun, what.forms) or nil
end

--- The text without what readers skip.
---@param bytes string
---@param name string  the file's, for messages
---@param what { noun: string, forms: string }  "a job", "Lua or JSON"
---@return string? bytes, string? err
function document.open(bytes, name, what)
  if bytes:sub(1, 3) == UTF8_MARK then bytes = bytes:sub(4) end
  for _, row in ipairs(SIGNATURES) do
    if bytes:find(row[1]) then return nil, ("%s: this is %s; %s is %s"):format(name, row[2], what.noun, what.forms) end
  end
  if not bytes:find "%S" then return nil, ("%s: is empty; expected %s"):format(name, what.noun) end
  if bytes:find("\0", 1, true) then return nil, ("%s: this is binary data; %s is %s"):format(name, what.noun, what.forms) end
  local interpreter = bytes:match "^#!%s*([^\n]*)"
  if interpreter and not interpreter:find "lua" and not interpreter:find "shoal" then
    return nil, ("%s:1: this is a script for %s (#!); %s is %s"):format(name, interpreter:gsub("%s+$", ""), what.noun, what.forms)
  end
  if bytes:sub(1, 2) == "#!" then bytes = "--" .. bytes:sub(3) end
  return bytes
end

--- Why a file cannot be read, in words.
---@param path string
---@param err string
---@param code? string
---@return string
function document.unreadable(path, err, code)
  if code == "EISDIR" then return ("cannot read %s: it is a folder; expected a file"):format(path) end
  if err:find(path, 1, true) then return "cannot " .. err end -- The world's words: "read FILE: No such file".
  return ("cannot read %s: %s"):format(path, err)
end

return document
