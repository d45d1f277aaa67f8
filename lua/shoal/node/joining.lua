--- joining: whether a node has found the others of its group, and who must not be among them. Nothing of it is silent: a seed that does
--- not answer is an incident within JOIN_MS, a node of another cluster or a second node of our name is one at once, on every side that sees
--- it; each comes again less and less often while it lasts, and a line says when it is over.
---
---     --join NAME:PORT ... -> seeds (all addresses of a name) -> membership tries them for ever
---       nobody answered for JOIN_MS: `swim.join`     one answered: "swim.joined"
---
--- Seeds are given as words, so that a name which is not known yet, or whose addresses change, is looked up again.
local dial = require "shoal.wire.dial"
local errors = require "shoal.base.errors"
local log = require "shoal.base.log"
local sorted = require "shoal.base.sorted"
local task = require "shoal.base.task"

local joining = {}

local JOIN_MS = 3000         -- A seed of a group that nobody joined may be silent for so long; within it a whole cluster starts.
local LATE_MS = 10000        -- One of several, while another answered.
local LOOK_MS = 500
local AGAIN_MS, AGAIN_MAX_MS = 30000, 600000 -- The same incident comes again after this long, then after twice as long, up to that.
local LOOKUP_MS = 5000
local FOREIGN_MS = 70000     -- For so long a notice explains the datagrams of another cluster that the transport counts.
local FOREIGN_MAX = 64       -- Nodes of other clusters that are remembered.
joining.SEEDS_MAX = 32       -- Addresses; core/swim.h.

log.event("swim.joined", { "seed", "address", "after_ms" })
log.event("swim.own_seed", { "seed" })

local function family(address) return address:sub(1, 1) == "[" and "IPv6" or "IPv4" end

--- The group's name in words: "shoal/a" is datacenter a of cluster shoal.
local function split(cluster)
  local name, dc = cluster:match "^(.*)/(.-)$"
  return name or cluster, dc or ""
end
local function place(dc) return dc ~= "" and "datacenter " .. dc or "no datacenter, as gates are" end

--- "datacenter A", or the cluster too where that is another one.
local function differing(theirs, ours)
  local cluster, dc = split(theirs)
  local our_cluster, our_dc = split(ours)
  if cluster ~= our_cluster then
    return ("cluster %s (%s)"):format(cluster, place(dc)), ("cluster %s (%s)"):format(our_cluster, place(our_dc))
  end
  return place(dc), place(our_dc)
end

local function tell(self, format, ...)
  if self.tell then self.tell(format:format(...)) end
end

--- Report, unless the same was reported a short while ago.
local function report(self, key, site, ids, text, code)
  local now, told = task.now_ms(), self.joining.told[key]
  if told and now < told.again_ms then return end
  local pause = told and math.min(told.pause_ms * 2, AGAIN_MAX_MS) or AGAIN_MS
  self.joining.told[key] = { pause_ms = pause, again_ms = now + pause }
  errors.report(site, ids, text, code)
  if not told then tell(self, "%s", text) end
end

-- Seeds ----------------------------------------------------------------------------------------------------------------

--- Look a seed's name up. Waits when it is a name.
local function resolve(self, seed)
  local host, port = dial.split(seed.word)
  if not host then return nil, port, "CONFIG" end
  if port == 0 then return nil, ("expected a port from 1 to 65535; found %q"):format(seed.word), "CONFIG" end
  if host:find ":" then
    seed.addresses = { ("[%s]:%d"):format(host, port) }
  elseif host:find "^%d+%.%d+%.%d+%.%d+$" then
    seed.addresses = { ("%s:%d"):format(host, port) }
  else
    local found, err, code = dial.lookup(self.world, host, port, LOOKUP_MS)
    if not found then return nil, err, code end
    seed.addresses = found
  end
  return true
end

--- The addresses of a seed that this node can reach and that are not its own.
local function usable(self, seed)
  local out, others = {}, 0
  seed.own = false
  for _, address in ipairs(seed.addresses or {}) do
    if address == self.address then seed.own = true
    elseif family(address) == family(self.address) then out[#out + 1] = address
    else others = others + 1 end
  end
  seed.unreachable = #out == 0 and not seed.own and others > 0
  return out
end

local function mismatch(self, seed)
  local theirs = family(seed.addresses[1])
  return ("join: %s is an %s address, and this node is bound to %s (%s), from where it cannot be reached: give --bind %s"):format(
    seed.addresses[1], theirs, self.address, family(self.address), theirs == "IPv6" and "[::1]:0" or "127.0.0.1:0")
end

--- The seeds of a node that starts, as addresses for membership. Waits for names.
---@param self table  the node
---@return string[]? addresses, string? err, string? code  "CONFIG": none of them can ever be reached, or they are too many
function joining.open(self)
  local out, unreachable = {}, nil
  self.joining = { seeds = {}, told = {}, foreign = {}, foreign_ms = -FOREIGN_MS, began_ms = task.now_ms() }
  for i, word in ipairs(self.config.join) do
    local seed = { word = word }
    self.joining.seeds[i] = seed
    local ok, err, code = resolve(self, seed)
    if not ok and code == "CONFIG" then return nil, "join: " .. err, code end
    seed.problem = not ok and err or nil
    for _, address in ipairs(usable(self, seed)) do out[#out + 1] = address end
    if seed.unreachable then unreachable = unreachable or seed end
    if seed.own and #self.config.join > 1 then log.info("swim.own_seed", { seed = word }) end
  end
  if #out == 0 and unreachable then return nil, mismatch(self, unreachable), "CONFIG" end
  if #out > joining.SEEDS_MAX then
    return nil, ("join: at most %d addresses, found %d"):format(joining.SEEDS_MAX, #out), "CONFIG"
  end
  return out
end

-- The look -------------------------------------------------------------------------------------------------------------

local REFUSED = {
  OWN = "sends back what it gets, or is this node itself", VERSION = "speaks another version of shoal's protocol",
  MISDIRECTED = "is another node than it was",
  CLUSTER = "is of another cluster or datacenter",
}

--- Why a seed has not answered; nil while it may still.
local function why(self, seed, state)
  if seed.problem then return ("%s: %s"):format(seed.word, seed.problem) end
  if seed.own and not state.silent_ms then return ("%s is this node itself"):format(seed.word) end
  if seed.unreachable then return mismatch(self, seed) end
  local foreign = self.joining.foreign[state.address]
  if foreign then
    return ("%s (%s) is of %s, and this node is of %s"):format(seed.word, foreign.name, differing(foreign.cluster, self.group))
  end
  if state.refused then
    return ("%s %s"):format(seed.word, REFUSED[state.refused] or "answers, but not as shoal does (" .. state.refused .. ")")
  end
  return ("%s does not answer (%d tries in %.0f s)"):format(seed.word, state.tries, state.silent_ms / 1000)
end

--- The state of a seed, from all its addresses.
local function state_of(self, seed, by_address, living)
  local state = { tries = 0 }
  for _, address in ipairs(seed.addresses or {}) do
    local s = by_address[address]
    if living[address] or s and s.answered then
      state.answered = address
    elseif s and s.tries > 0 and s.silent_ms >= (state.silent_ms or 0) then
      state.silent_ms, state.refused, state.address = s.silent_ms, s.refused, address
    end
    state.tries = state.tries + (s and s.tries or 0)
  end
  if not state.silent_ms and (seed.problem or seed.own or seed.unreachable) then state.waited_ms = task.now_ms() - self.joining.began_ms end
  return state
end

local function note_joined(self, seed, state)
  if seed.joined then return end
  seed.joined = true
  log.info("swim.joined", { seed = seed.word, address = state.answered, after_ms = math.floor(task.now_ms() - self.joining.began_ms) })
  if self.joining.told[seed.word] then tell(self, "joined %s", seed.word) end
  self.joining.told[seed.word] = nil
end

--- One look at the seeds. Names that were not found are looked up again.
local function look(self)
  local by_address, living, states, joined = {}, {}, {}, false
  for _, s in ipairs(self.swim:seeds()) do by_address[s.address] = s end
  for _, m in ipairs(self.swim:members()) do
    if m.name ~= self.name and m.state == "alive" then living[m.address], joined = true, true end
  end
  local seeds = self.joining.seeds
  for i, seed in ipairs(seeds) do
    states[i] = state_of(self, seed, by_address, living)
    joined = joined or states[i].answered ~= nil
  end
  self.joining.joined = joined or #seeds == 0
  if self.apart then return end
  for i, seed in ipairs(seeds) do
    local state = states[i]
    local waited_ms = state.silent_ms or state.waited_ms or 0
    if state.answered then
      note_joined(self, seed, state)
    elseif (waited_ms >= (joined and LATE_MS or JOIN_MS) or self.joining.foreign[state.address or ""]) and not (seed.own and #seeds > 1) then
      local text = why(self, seed, state)
      seed.joined = nil
      report(self, seed.word, joined and "swim.seed" or "swim.join",
        { seed = seed.word, tries = state.tries, silent_ms = math.floor(waited_ms) },
        joined and "a seed is missing: " .. text or "joined nobody yet: " .. text, "UNREACHABLE")
    end
  end
end

--- Look up again the names that had no address.
local function look_up_again(self)
  for _, seed in ipairs(self.joining.seeds) do
    if seed.problem then
      local ok, err = resolve(self, seed)
      seed.problem = not ok and err or nil
      local addresses = ok and usable(self, seed) or {}
      if #addresses > 0 then
        local added, problem, code = self.swim:join(addresses)
        if not added then errors.report("swim.join", { seed = seed.word, tries = 0, silent_ms = 0 }, problem, code) end
      end
    end
  end
end

--- The loops that look after the seeds, once membership is open.
---@param self table  the node
function joining.watch(self)
  if #self.joining.seeds == 0 then
    self.joining.joined = true
    return
  end
  self.scope:loop("node.join", {}, { interval_ms = LOOK_MS, first_ms = LOOK_MS }, function () look(self) end)
  for _, seed in ipairs(self.joining.seeds) do
    if seed.problem then
      self.scope:loop("node.lookup", {}, { interval_ms = LOOKUP_MS, first_ms = LOOKUP_MS }, function () look_up_again(self) end)
      break
    end
  end
end

-- Notices --------------------------------------------------------------------------------------------------------------

local function on_namesake(self, n)
  local ids = { member = n.name, stays = n.address, out = n.other }
  local text
  if not n.ours then
    text = ("two nodes are called %s: the one at %s stays, the one at %s stays out"):format(n.name, n.address, n.other)
  elseif n.out then
    text = ("another node is called %s: it is a member, at %s. This one, at %s, stays out until that one has ended: give one of them another "
      .. "--name"):format(n.name, n.address, n.other)
  else
    text = ("another node is called %s: this one, at %s, stays; the one at %s stays out"):format(n.name, n.address, n.other)
  end
  if n.ours then self.apart = n.out end
  report(self, "namesake " .. n.name .. " " .. n.other, "swim.namesake", ids, text, "EXISTS")
end

local function on_foreign(self, n)
  self.joining.foreign_ms = task.now_ms()
  self.joining.foreign_count = (self.joining.foreign_count or 0) + (self.joining.foreign[n.address] and 0 or 1)
  if self.joining.foreign_count > FOREIGN_MAX then -- Whoever sends from many addresses is told of again.
    self.joining.foreign, self.joining.foreign_count = {}, 1
    for key in sorted(self.joining.told) do
      if key:find "^foreign " then self.joining.told[key] = nil end
    end
  end
  self.joining.foreign[n.address] = { name = n.name, cluster = n.cluster }
  for _, seed in ipairs(self.joining.seeds) do
    for _, address in ipairs(seed.addresses or {}) do
      if address == n.address then return look(self) end -- It is reported as a seed that cannot be joined.
    end
  end
  report(self, "foreign " .. n.address, "swim.foreign", { address = n.address, member = n.name, cluster = n.cluster },
    ("%s (%s) wants to join, but is of %s, and this node is of %s"):format(n.address, n.name, differing(n.cluster, self.group)), "REFUSED")
end

log.event("swim.namesake_gone", { "member", "was_at" })

--- Take a notice of membership.
---@param self table  the node
---@param event SwimNotice
function joining.notice(self, event)
  if event.kind == "namesake" then
    on_namesake(self, event)
  elseif event.kind == "namesake_gone" then
    self.apart = false
    self.joining.told["namesake " .. event.name .. " " .. event.address] = nil
    log.info("swim.namesake_gone", { member = event.name, was_at = event.other })
    tell(self, "the other %s, at %s, has ended: this one joins", event.name, event.other)
  elseif event.kind == "foreign" then
    on_foreign(self, event)
  end
end

--- Do notices explain the datagrams of other clusters that are counted now?
function joining.explains_foreign(self) return self.joining ~= nil and task.now_ms() - self.joining.foreign_ms < FOREIGN_MS end

--- For people: "joined", "nobody" or "apart".
function joining.state(self)
  if not self.joining then return "" end
  return self.apart and "apart" or self.joining.joined and "joined" or "nobody"
end

return joining
