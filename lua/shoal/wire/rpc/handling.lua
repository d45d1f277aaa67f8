--- How rpc runs handlers: each message in a reused task, whose results become the answer. One-way messages are bounded.
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"
local messages = require "shoal.wire.messages"
local task = require "shoal.base.task"

local handling = {}

local IDLE_MAX = 64 -- Workers kept for the next request.
--- One-way messages that are being handled. Nobody waits for them, so the transport does not count them as it does requests.
local ONE_WAY_MAX, ONE_WAY_PEER_MAX = 1000, 250

--- An answer could not be sent. A client may go whenever its user likes (Ctrl-C): that is a line of the log; all else is an incident.
local function unsent(self, ids, err, code, by_client)
  if by_client and code == "DISCONNECTED" then
    self.unread_replies = self.unread_replies + 1
    log.debug("rpc.unread", type(ids) == "function" and ids() or ids)
  else
    errors.report("rpc.reply", ids, err, code)
  end
end

local function answer(self, ids, request, bytes, by_client)
  local ok, err, code = self.net:reply(request, bytes)
  if not ok then unsent(self, ids, err, code, by_client) end
end

--- Refuse a request; a one-way message (no request) has nobody to refuse. The code goes out as a word; a handler may have given
--- anything.
function handling.refuse(self, ids, request, code, text, by_client)
  if not request then return end
  code = type(code) == "string" and code:match "^[%w_%-%.]+$" and code:sub(1, 64) or "REFUSED"
  local ok, err, word = self.net:refuse(request, code, text)
  if not ok then unsent(self, ids, err, word, by_client) end
end

--- A handler's task, after the protected call: its results become the answer.
local function finish(self, message, ids, request, by_client, ok, reply, err, code)
  if not ok then -- `reply` is the incident: it has been reported.
    return handling.refuse(self, ids, request, "FAILED", ("%s: the handler failed: %s"):format(message.name,
      reply.message or reply.id or "?"), by_client)
  end
  if reply == nil and err ~= nil then
    if request then return handling.refuse(self, ids, request, code, tostring(err), by_client) end
    errors.report("rpc.handler", ids, err, code) -- No sender waits for this refusal, so it would be lost.
    return
  end
  if not request then return end
  if not message.reply then -- The sender asked for an answer that never comes: it must not wait for it.
    return handling.refuse(self, ids, request, "REFUSED", message.name .. " is one way: it has no reply")
  end
  if reply == nil then
    errors.report("rpc.handler", ids, "the handler returned nothing where a reply is due", "FAILED")
    return handling.refuse(self, ids, request, "FAILED", message.name .. ": the handler returned nothing")
  end
  if reply == true and message.reply ~= "bytes" then reply = {} end
  local bytes
  if self.raw_handlers[message.name] then
    bytes = reply
  else
    bytes, err, code = messages.encode_reply(message.name, reply)
  end
  if bytes then return answer(self, ids, request, bytes, by_client) end
  errors.report("rpc.reply", ids, err, code)
  handling.refuse(self, ids, request, "FAILED", err)
end

--- Is there room to handle one more one-way message? If not, it is dropped and reported at `rpc.shed`. The control lane is bounded by
--- peer only; beyond that bound the connection is closed, so that the sender learns that a message was lost.
local function enter(self, message, peer)
  local mine, control = peer.one_way or 0, message.lane == "control"
  if mine < ONE_WAY_PEER_MAX and (control or self.one_way < ONE_WAY_MAX) then
    self.one_way, peer.one_way = self.one_way + 1, mine + 1
    return true
  end
  local text = ("%d one-way messages are being handled, %d of this peer's; %s"):format(self.one_way, mine,
    control and "its connection is closed" or "this one is dropped")
  errors.report("rpc.shed", { message = message.name, peer = peer:name() }, text, "FULL")
  if control then peer:close() end
  return false
end

local function left(self, peer) self.one_way, peer.one_way = self.one_way - 1, peer.one_way - 1 end

--- One request, start to answer. In a function of its own, so that an idle worker holds on to nothing of it.
---
--- A worker's task begins again after a failure of our own code (Scope:keep), and then the request is still here. If that was before its
--- handler, it is handled now. Else it is refused, once: a handler does not run twice for one request.
local function serve(self, worker)
  local ids, peer, one_way, begun = worker.ids, worker.peer, not worker.request, worker.begun
  if not begun then
    worker.begun = "handled"
    finish(self, worker.message, ids, worker.request, worker.by_client, errors.call("rpc.handler", ids, worker.handler, worker.body, peer))
  elseif begun == "handled" then
    worker.begun = "refused"
    handling.refuse(self, ids, worker.request, "FAILED", worker.message.name .. ": its answer could not be given", worker.by_client)
  end
  worker.begun = nil
  if one_way then left(self, peer) end
  worker.message, worker.request, worker.handler, worker.body, worker.peer = nil, nil, nil, nil, nil
end

--- Handlers run in reused tasks: a coroutine and a task for every request would cost more than all the rest of this file. A worker
--- whose handler waits is not among the idle ones.
local function work(self, worker)
  local idle, inbox = self.idle, worker.inbox
  repeat
    serve(self, worker)
    if #idle >= IDLE_MAX then return end
    idle[#idle + 1] = worker
  until not inbox:pop()
end

local function new_worker()
  local worker = { inbox = task.channel(1) }
  --- Only read when something failed.
  worker.ids = function ()
    if not worker.message then return { message = "none", peer = "none", request = 0 } end
    return { message = worker.message.name, peer = worker.peer:name(), request = worker.number }
  end
  return worker
end

--- Hand a message to an idle worker, or to a new one.
function handling.dispatch(self, message, request, handler, body, peer)
  if not request and not enter(self, message, peer) then return end
  local idle = self.idle
  local count = #idle
  local worker = idle[count]
  if worker then idle[count] = nil else worker = new_worker() end
  self.requests = self.requests + 1
  worker.message, worker.request, worker.handler, worker.body, worker.peer = message, request, handler, body, peer
  worker.number, worker.by_client = self.requests, peer.role == "client" -- Now: a connection that is gone has no role.
  local ok, err, code
  if count > 0 then
    ok, err, code = worker.inbox:push(true)
  else
    ok, err, code = self.scope:keep("rpc.handler", worker.ids, function () work(self, worker) end)
  end
  if not ok then
    if not request then left(self, peer) end
    return handling.refuse(self, worker.ids, request, code, err)
  end
  task.flush() -- Now, not a turn later: this is the end of a callback of the transport.
end

return handling
