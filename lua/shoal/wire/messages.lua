--- The one registry of messages: for each its senders, its receivers, its lane and the fields of its body.
---
--- Definitions are plain data, a file a family: shoal/messages/job.lua, part.lua, node.lua. Fields are { name, type } in the
--- order they have on the wire; the types' grammar is that of shoal.core.msgpack ("string", "integer?", "array:PartReport",
--- "enum:a|b", ...). A node runs `messages.check` before it starts, so that every message that is sent has a receiver.
local msgpack = require "shoal.core.msgpack"
local schema = require "shoal.base.schema"

local messages = {}

---@class Message
---@field name string     "part.dispatch"
---@field id integer      its type on the wire, 0..65535; never reused
---@field lane "control"|"dispatch"|"data"|"telemetry"
---@field from string[]   roles that may send it
---@field to string[]     roles that must handle it
---@field asked_by? string[]  it goes only to senders of these messages, so only their roles must handle it
---@field fields table
---@field reply? table|"bytes"  absent: one way
---@field timeout_ms integer
---@field retry "no"|"idempotent"
---@field doc? string

messages.roles = { "gate", "manager", "worker", "client" }
messages.lanes = { "control", "dispatch", "data", "telemetry" }

local role = schema.enum { table.unpack(messages.roles) }
local definition = schema.record({
  name = schema.string { pattern = "^%l[%l_]*%.?[%l_]*$", max = 64 },
  id = schema.integer { min = 0, max = 65535 },
  lane = schema.enum { table.unpack(messages.lanes) },
  from = schema.array(role, { min = 1 }),
  to = schema.array(role, { min = 1 }),
  asked_by = schema.optional(schema.array(schema.string())),
  fields = schema.any(),
  reply = schema.optional(schema.any()),
  timeout_ms = schema.integer { default = 5000, min = 1, max = 600000 },
  retry = schema.enum { "no", "idempotent", default = "no" },
  doc = schema.optional(schema.string()),
}, function (d)
  if type(d.fields) ~= "table" then return "fields: a list of { name, type } expected" end
  if d.reply ~= nil and d.reply ~= "bytes" and type(d.reply) ~= "table" then
    return 'reply: a list of { name, type } or "bytes" expected'
  end
end)

local by_name, by_id, types = {}, {}, {}

--- Declare a message. A mistake raises, for it is a bug of this program.
---@param message table  see Message
function messages.define(message)
  local checked, err = definition(message)
  if not checked then error(("messages: %s: %s"):format(tostring(message.name), err), 2) end
  if by_name[checked.name] then error(("messages: %s is defined twice"):format(checked.name), 2) end
  if by_id[checked.id] then
    error(("messages: %s has the id %d of %s"):format(checked.name, checked.id, by_id[checked.id].name), 2)
  end
  checked.may_send = {} -- `from` as a set, for the check of each message.
  for _, one in ipairs(checked.from) do checked.may_send[one] = true end
  by_name[checked.name], by_id[checked.id] = checked, checked
end

--- Declare a record that fields can name as their type.
---@param name string
---@param fields table
function messages.type(name, fields)
  if types[name] then error(("messages: the type %s is defined twice"):format(name), 2) end
  types[name] = fields
end

--- A family's types, then its messages.
---@param family { types: table<string, table>, messages: table[] }
function messages.family(family)
  for name, fields in next, family.types or {} do messages.type(name, fields) end -- order-free: definitions
  for _, message in ipairs(family.messages) do messages.define(message) end
end

--- Names, sorted: for check, for help.
---@return string[]
function messages.names()
  local names = {}
  for name in next, by_name do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function missing(name, level)
  local meant = schema.did_you_mean(name, messages.names())
  error(("messages: there is no message %s%s"):format(tostring(name),
    meant and (", did you mean %s?"):format(meant) or ""), level + 1)
end

--- The definition of this name; an unknown one raises.
---@param name string
---@return Message
function messages.get(name) return by_name[name] or missing(name, 2) end

--- The definition with this wire type, or nil.
---@param id integer
---@return Message?
function messages.by_id(id) return by_id[id] end

--- Compiled on first use, so that types may be declared after what uses them.
local function body_schema(message)
  local compiled = msgpack.compile(message.fields, types, message.name)
  message.body = compiled
  return compiled
end

local function reply_schema(message)
  local compiled = msgpack.compile(message.reply, types, message.name .. " reply")
  message.reply_body = compiled
  return compiled
end

--- Compile every message now: a mistake in a definition raises here and not at its first use.
function messages.compile()
  for _, name in ipairs(messages.names()) do
    local message = by_name[name]
    body_schema(message)
    if type(message.reply) == "table" then reply_schema(message) end
  end
end

---@param name string
---@param body table
---@return string? bytes
---@return string? err  "part.dispatch: share.vus: expected integer, found string"
---@return string? code "MALFORMED"
function messages.encode(name, body)
  local message = by_name[name] or missing(name, 2)
  return (message.body or body_schema(message)):encode(body)
end

---@param name string
---@param bytes string
---@return table? body
---@return string? err
---@return string? code "MALFORMED"
function messages.decode(name, bytes)
  local message = by_name[name] or missing(name, 2)
  return (message.body or body_schema(message)):decode(bytes)
end

local function one_way(message) error(("messages: %s has no reply"):format(message.name), 3) end

---@param name string
---@param reply table|string  a string where the reply is declared as "bytes"
---@return string? bytes
---@return string? err
---@return string? code "MALFORMED"
function messages.encode_reply(name, reply)
  local message = by_name[name] or missing(name, 2)
  if message.reply == "bytes" then
    if type(reply) == "string" then return reply end
    return nil, ("%s reply: expected bytes, found %s"):format(name, type(reply)), "MALFORMED"
  end
  if not message.reply then one_way(message) end
  return (message.reply_body or reply_schema(message)):encode(reply)
end

---@param name string
---@param bytes string
---@return table|string? reply
---@return string? err
---@return string? code "MALFORMED"
function messages.decode_reply(name, bytes)
  local message = by_name[name] or missing(name, 2)
  if message.reply == "bytes" then return bytes end
  if not message.reply then one_way(message) end
  return (message.reply_body or reply_schema(message)):decode(bytes)
end

local function set(list)
  local result = {}
  for _, item in ipairs(list) do result[item] = true end
  return result
end

local function any_of(list, wanted)
  for _, item in ipairs(list) do if wanted[item] then return true end end
  return false
end

--- Before a node starts: check that it handles every message to its roles, and sends only messages that they may send.
---@param roles string|string[]  one role, or all of a node that holds several
---@param handled string[]       names of messages with a handler
---@param sent string[]          names of messages that it sends
---@return true? ok
---@return string? problems      every one, "; " between
---@return string? code          "CONFIG"
function messages.check(roles, handled, sent)
  if type(roles) == "string" then roles = { roles } end
  local mine, handles, sends, problems = set(roles), set(handled), set(sent), {}
  local who = table.concat(roles, "+")
  local function problem(...) problems[#problems + 1] = string.format(...) end
  for _, one in ipairs(roles) do
    if not set(messages.roles)[one] then problem("there is no role %s", tostring(one)) end
  end
  local function known(name, verb)
    if by_name[name] then return true end
    local meant = schema.did_you_mean(name, messages.names())
    problem("%s %s %s, which is no message%s", who, verb, tostring(name),
      meant and (", did you mean %s?"):format(meant) or "")
    return false
  end
  for _, name in ipairs(handled) do
    if known(name, "handles") and not any_of(by_name[name].to, mine) then
      problem("%s handles %s, which goes only to %s", who, name, table.concat(by_name[name].to, ", "))
    end
  end
  for _, name in ipairs(sent) do
    if known(name, "sends") and not any_of(by_name[name].from, mine) then
      problem("%s sends %s, which comes only from %s", who, name, table.concat(by_name[name].from, ", "))
    end
  end
  for _, name in ipairs(messages.names()) do
    local message = by_name[name]
    local expected = any_of(message.to, mine) and (not message.asked_by or any_of(message.asked_by, sends))
    if expected and not handles[name] then
      problem("%s does not handle %s, which %s may send", who, name, table.concat(message.from, ", "))
    end
  end
  if problems[1] then return nil, table.concat(problems, "; "), "CONFIG" end
  return true
end

--- For specs: restore the project's own families, or with `empty` remove all.
---@param empty? boolean
function messages.reset(empty)
  by_name, by_id, types = {}, {}, {}
  if empty then return end
  messages.family(require "shoal.wire.messages.job")
  messages.family(require "shoal.wire.messages.part")
  messages.family(require "shoal.wire.messages.node")
end

messages.reset()
return messages
