--- feed: all events of one job in one sequence. A client gets them by push, by poll, or replayed from a number.
---
--- Numbers rise by one. Those of a leadership begin at its fence * 2^20, so a client that reconnects after a restart of the leader
--- asks from a number below all the new ones, and gets every event it has not seen. The feed keeps its last KEPT_MAX events. A
--- client that asks for older ones gets "truncated from n", with the first number that is kept; a gap is never silent. Each
--- watcher has at most one message in flight, so a slow watcher delays only itself; small events that wait are sent together.
local errors = require "shoal.base.errors"
local task = require "shoal.base.task"

local feed = {}
feed.__index = feed

local FENCE_SHIFT = 20
local KEPT_MAX = 512
local STATS_KEPT = 4 -- Stats events that keep their body: a newer one contains all that an older one did.
local PUSH_TIMEOUT_MS = 5000
local TOGETHER_MAX = 16 -- Events in one message.
local TRIES_MAX = 5 -- Then the watch ends with an incident; the client asks again when it is back.
local MESSAGE = { status = "job.status", stats = "job.stats", result = "job.result" }

---@param job string
---@param scope table    the job's; watchers end with it
---@param fence integer  of the leadership that gives the numbers
---@param again boolean? the job began under an earlier leadership, so its first events are gone
---@param watching? { count: integer }  counts the watchers of all feeds of a leader
function feed.new(job, scope, fence, again, watching)
  local base = fence << FENCE_SHIFT
  return setmetatable({
    job = job, scope = scope, fence = fence, events = {}, first = base + 1, last = base, origin = again and 0 or base + 1, watchers = {},
    whole = {}, closed = false, watching = watching or { count = 0 },
  }, feed)
end

--- Whether no event of its leadership can come before the one with this number.
---@param seq integer
---@return boolean
function feed.is_first(seq) return seq & (1 << FENCE_SHIFT) - 1 == 1 end

--- Continue the numbering of a feed that was dropped, after this number.
function feed:go_on(last)
  self.first, self.last = last + 1, last
end

--- Stats events are frequent: empty all but the newest STATS_KEPT of them, which keep their numbers in the sequence.
local function thin(self, event)
  local whole = self.whole
  whole[#whole + 1] = event
  if #whole <= STATS_KEPT then return end
  local old = table.remove(whole, 1)
  old.body = { at_ms = old.body.at_ms, parts = {}, thinned = true }
end

--- The first number that is kept, if events between `from` and it are gone; else nil.
local function truncated(self, from)
  if from >= self.first or self.first == self.origin then return nil end
  return self.first
end

---@param kind "status"|"stats"|"result"
---@param body table
---@param small? boolean  a result that is known to be small, so it may be sent together with others
function feed:push(kind, body, small)
  self.last = self.last + 1
  local event = { seq = self.last, kind = kind, body = body, alone = kind ~= "status" and not small }
  self.events[self.last] = event
  if kind == "stats" then thin(self, event) end
  if self.last - self.first >= KEPT_MAX then
    self.events[self.first] = nil
    self.first = self.first + 1
  end
  for _, w in ipairs(self.watchers) do w.wake:push(true) end -- dropped: full means awake
end

--- Events from `from` on, at most `max`; and the first number that is kept, if `from` is older.
---@return table[] events, integer? truncated_from
function feed:since(from, max)
  local start, out = math.max(from, self.first), {}
  for seq = start, math.min(self.last, start + max - 1) do
    local event = self.events[seq]
    out[#out + 1] = { seq = seq, kind = event.kind, body = event.body }
  end
  return out, truncated(self, from)
end

local function forget(self, watcher)
  for i, w in ipairs(self.watchers) do
    if w == watcher then
      table.remove(self.watchers, i)
      self.watching.count = self.watching.count - 1
      return
    end
  end
end

--- The next message to a watcher: one event, or several small ones. Returns its name, its body, and the last number in it.
local function next_message(self, watcher)
  local event = self.events[watcher.next]
  local last = event.seq
  while not event.alone and last < self.last and last - event.seq < TOGETHER_MAX - 1 and not self.events[last + 1].alone do last = last + 1 end
  if last == event.seq then
    return MESSAGE[event.kind], { job = self.job, seq = event.seq, truncated_from = watcher.truncated_from, body = event.body,
      fence = self.fence }, last
  end
  local events = {}
  for seq = event.seq, last do
    local each = self.events[seq]
    events[#events + 1] = { seq = seq, kind = each.kind, body = each.body }
  end
  return "job.push", { job = self.job, seq = event.seq, truncated_from = watcher.truncated_from, events = events, fence = self.fence }, last
end

--- Push the next message. Returns the last number that the watcher took, or nil if it does not answer.
local function send(self, watcher)
  local name, body, last = next_message(self, watcher)
  local event = { seq = body.seq }
  for try = 1, TRIES_MAX do
    local reply, err, code = watcher.peer:call(name, body, { timeout_ms = PUSH_TIMEOUT_MS })
    if reply == "ok" then
      watcher.truncated_from = nil
      return last
    end
    errors.report("lead.push", { job = self.job, sequence = event.seq, watcher = watcher.name, attempt = try },
      err or ("the client answered " .. tostring(reply)), code or reply == "stale" and "STALE" or "REFUSED")
    if reply == "stale" then return nil end -- A later leadership pushes to it.
    if reply == "error" then return last end -- The client read it and refused it, and would refuse it again.
    task.sleep(math.min(250 * 2 ^ (try - 1), 2000))
  end
  return nil
end

local function run(self, watcher)
  while true do
    while watcher.next <= self.last do
      if watcher.next < self.first then
        watcher.truncated_from, watcher.next = truncated(self, watcher.next), self.first
      end
      local last = send(self, watcher)
      if not last then return end
      watcher.next = last + 1
    end
    if self.closed then return end
    watcher.wake:pop()
  end
end

--- Push all events from `from` on to this peer. A second watch by the same peer replaces the first.
function feed:watch(peer, from)
  local name = peer:name()
  self:leave(peer)
  local watcher = { peer = peer, name = name, next = math.max(1, from), wake = task.channel(1) }
  self.watchers[#self.watchers + 1] = watcher
  self.watching.count = self.watching.count + 1
  watcher.task = self.scope:keep("lead.watch", { job = self.job, watcher = name }, function ()
    run(self, watcher)
    forget(self, watcher)
  end)
end

--- This peer's connection has ended: stop its watch. It asks again when it is back.
---@return boolean found
function feed:leave(peer)
  for _, w in ipairs(self.watchers) do
    if w.peer == peer then
      w.task:cancel()
      forget(self, w)
      return true
    end
  end
  return false
end

--- Drop the feed: end its scope.
function feed:drop()
  self.watching.count = self.watching.count - #self.watchers
  self.watchers = {}
  self.scope:close()
end

--- No more events follow; each watcher ends after the last one.
function feed:close()
  self.closed = true
  for _, w in ipairs(self.watchers) do w.wake:push(true) end
end

return feed
