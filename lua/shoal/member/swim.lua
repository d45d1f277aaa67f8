--- Membership: the nodes of the cluster, and which of them are alive. SWIM, as described in c/core/swim.h; usable alone:
---
---     local swim = require "shoal.member.swim"
---     local world = require "shoal.core.world".current()
---     local s = assert(swim.open(world, { node = "w1", bind = "127.0.0.1:0", seeds = { "127.0.0.1:7000" } },
---       function (event) print(event.kind, event.member.name) end))
---     require "luv".run()
---
--- Each member sees the others as alive, suspect, dead or left. Events come in the order in which they happened here. One `dead` or
--- `left` ends each `join`. A restarted node is first `dead` in its old incarnation, then joins.
--- A member's `payload` is up to 512 bytes that it sets itself; it is nil until one has arrived.
--- A member that flaps is shown dead (`held`) until it has been stable for a while, or restarts: c/core/swim_flap.c.
--- Seeds are retried for ever; an address that never answers is not a member and causes no event.
--- Datagrams are not sealed yet, so only loopback addresses can be bound.
local core = require "shoal.core.swim"
local schema = require "shoal.base.schema"
local sorted = require "shoal.base.sorted"

local swim = {}

local ADDRESS = "^[%w%.:%[%]]+:%d+$"

local function tuning(min, max, doc) return schema.optional(schema.integer { min = min, max = max, doc = doc }) end

--- Times are milliseconds. The profile gives the defaults: `lan` (a probe each 1 s), `wan` (5 s), `local` (0.2 s).
--- The core checks the rules across fields, and names the field in the same way.
swim.config = schema.record {
  node = schema.string { max = 64, doc = "this member's name, unique in the cluster" },
  bind = schema.string { pattern = ADDRESS, doc = "ip:port for datagrams; port 0 takes a free one" },
  advertise = schema.optional(schema.string { pattern = ADDRESS, doc = "where others reach us, when that is not `bind`" }),
  cluster = schema.string { max = 64, default = "", doc = "members of other clusters are refused" },
  payload = schema.string { max = 512, default = "", doc = "bytes that every member gets to know of us" },
  profile = schema.enum { "lan", "wan", "local", default = "lan" },
  seeds = schema.array(schema.string { pattern = ADDRESS, doc = "ip:port" }, { max = 32, default = {} }),
  generation = tuning(0, 2 ^ 32 - 2 | 0, "at least this; give a stored one + 1 to be independent of the clock"),
  record = schema.string { max = 1024, default = "", doc = "a file for a recording of all inputs, for replay; about 150 B a second" },
  probe_interval_ms = tuning(10, 600000, "a period: between two probes of ours"),
  probe_timeout_ms = tuning(1, 599999, "after this long without an answer, others are asked to probe; below probe_interval_ms"),
  indirect_probes = tuning(0, 8, "how many are asked"),
  ping_repeats = tuning(0, 8, "how often an unanswered ping is repeated within its probe"),
  health_max = tuning(0, 8, "local health: probes of a node in bad health take up to 1 + this times as long; 0: off"),
  buddy = tuning(0, 1, "1: a ping to a suspect carries the suspicion first, so that it can refute"),
  verify_deaths = tuning(0, 1, "1: believe a death only if the member had its time to refute, or does not answer us"),
  gossip_interval_ms = tuning(5, 60000, "between two rounds of gossip, while there is news"),
  gossip_fanout = tuning(1, 8, "members that get gossip in a round"),
  retransmit_multiplier = tuning(1, 8, "news is sent this many times ceil(log10(N + 1))"),
  gossip_bytes_per_s = tuning(300, 10000000, "gossip at most, on datagrams of any type"),
  user_bytes_per_s = tuning(300, 10000000, "user events at most, in addition, while there are any"),
  suspicion_multiplier = tuning(1, 16, "least time to refute, in periods, times log10 N"),
  suspicion_max = tuning(1, 16, "most time to refute, in least times"),
  confirmations = tuning(0, 7, "further accusers that bring it down to the least"),
  sync_interval_ms = tuning(10, 86400000, "pauses between push-pulls grow to this while the tables keep differing"),
  join_retry_ms = tuning(10, 86400000, "first wait before a seed is tried again; doubles"),
  join_retry_max_ms = tuning(10, 86400000, "up to this"),
  leave_timeout_ms = tuning(1, 600000, "stop waiting for witnesses of our leaving"),
  tombstone_ms = tuning(10, 4294967295, "how long members that died or left are remembered"),
  datagram_max = tuning(768, 1400, "bytes"),
  stream_bytes = tuning(0, 100000000, "a table longer than about this is fetched over a stream"),
  members_max = tuning(2, 1000000, "records kept, tombstones included"),
  flap_limit = tuning(0, 1000, "points (1 a suspicion, 3 more a death) at which a flapping member is held dead; 0: never"),
  flap_half_life_ms = tuning(100, 86400000, "in which points decay by half; at a quarter of the limit it is released"),
}

---@class Swim
---@field members fun(self: Swim): SwimMember[]  all remembered members, ourselves included, sorted by name
---@field member fun(self: Swim, name: string): SwimMember?
---@field self fun(self: Swim): SwimMember
---@field join fun(self: Swim, addresses: string[]): true?, string?, string?  add seeds, tried now; code "FULL" past 32
---@field forget fun(self: Swim, address: string): boolean  remove a seed; false if it was none
---@field erase fun(self: Swim, name: string): true?, string?, string?  remove a member that is dead or has left, everywhere; codes "BUSY":
---  it is alive, "NOT_FOUND"
---@field seeds fun(self: Swim): SwimSeed[]  how they stand
---@field is_out fun(self: Swim): boolean  this node stays out, for another of its name is a member
---@field leave fun(self: Swim, on_done?: fun(heard: integer)): true?, string?, string?
---  announce that we leave; on_done gets the number of members that acknowledged it. Then `close`. A second call: code "EXISTS".
---@field payload fun(self: Swim, bytes: string): true?, string?, string?  a new payload; code "TOO_LARGE" past 512 bytes
---@field hint fun(self: Swim, name: string): boolean  there is evidence against this member: probe it now. This decides nothing.
---@field tell fun(self: Swim, bytes: string): true?, string?, string?, integer?  broadcast 1 to 256 bytes: each reachable member gets
---  one event `user`, in no order (`number` tells it). Codes "TOO_LARGE" and "FULL": then nothing was told, and the fourth value is in
---  how many ms to tell it again. FULL comes when 1,024 events of this member, or 4,096 of all, are not over; an event can be over 10
---  periods after it was last asked for. What else may be relied on: c/core/swim.h, "Events of users".
---@field why fun(self: Swim, name: string): SwimWhy?  the evidence for a member's state; `swim.explain` makes it text
---@field distance_ns fun(self: Swim, a: string, b: string): integer?  the round trip between two members, predicted by
---  their network coordinates; nil while one of them has sent none (near nodes never do)
---@field reconfigure fun(self: Swim, options: table): true?, string?, string?  change times and counts while it runs; a given `profile`
---  applies first. Codes "CONFIG", "FULL" (members_max below the number of members): then nothing changed.
---@field address fun(self: Swim): string  where it is bound
---@field counts fun(self: Swim): table  datagrams by type, refusals by reason (`refused`), datagrams that the network refused in all
---  (`send_failed`) and by the error's name (`send_errors`), probes, suspicions, deaths, rtt_ns, live, ...; of events of users: `user_sent`,
---  `user_heard`, `user_full` (refused tells), `user_repeated`, `user_missed` (over before they reached us), `user_dropped` (no memory)
---@field close fun(self: Swim)  close at once, without announcing it. Idempotent. Other methods then raise.

---@class SwimMember
---@field name string
---@field address string
---@field state "alive"|"suspect"|"dead"|"left"
---@field incarnation { generation: integer, version: integer }
---@field payload string?
---@field payload_version integer  0 until a payload has arrived
---@field suspected_ms integer    how long it has been suspected here; in an event: the suspicion it ended. 0: none, or dead by gossip
---@field confirmations integer   of that suspicion, by others
---@field held true?               it is shown dead because it flapped
---@field rtt_ns integer?          smoothed round trip of our probes of it

---@class SwimEvent
---@field kind "join"|"suspect"|"alive"|"dead"|"left"|"update"|"forgotten"|"user"
---@field member SwimMember  for `dead`, `held` may be true; state and incarnation are of the event, the rest is current

---@field told string?     of `user`: the member's bytes (even of one shown dead, for other members may have received them)
---@field number integer?  of `user`: counts this member's broadcasts of one generation, from 1

---@class SwimNotice
---@field kind "namesake"|"namesake_gone"|"foreign"
---@field name string     of `foreign`: the other node's; else the name that two nodes have
---@field address string  of the one that stays; of `foreign`: the other node's
---@field other string    of the one that stays out; of `namesake_gone`: where the other one was
---@field ours boolean    it is this node's name
---@field out boolean     this node stays out
---@field cluster string  of `foreign`: its cluster

---@class SwimSeed
---@field address string
---@field answered boolean
---@field tries integer     without an answer so far
---@field silent_ms integer  since the first of them
---@field refused string?   the reason for which the last datagram from there was refused, such as "CLUSTER"

---@class SwimWhy  times are whole milliseconds; facts come newest first
---@field member SwimMember
---@field heard_s integer?  seconds since it answered us; nil: never, or more than 18 hours ago
---@field health integer    our own local health: 0 is good; the worse it is, the more time we give others
---@field probe { since_ms: integer, ends_ms: integer }?  our pending probe
---@field suspicion { since_ms: integer, ends_ms: integer, least_ms: integer, most_ms: integer, wanted: integer, accusers: string[] }?
---@field flap_points number  for flapping; and how long it will be held for them, if it stays stable
---@field held_for_ms integer?
---@field facts { kind: string, text: string, ago_ms: integer, incarnation: string, by: string?, asked: integer?, nacks: integer? }[]

--- A SwimWhy as text, for people.
---@param why SwimWhy
---@return string
function swim.explain(why)
  local m = why.member
  local lines = { ("%s at %s is %s, incarnation %d.%d"):format(m.name, m.address, m.state, m.incarnation.generation, m.incarnation.version) }
  local function say(...) lines[#lines + 1] = "  " .. string.format(...) end
  if why.heard_s then say("it answered us %d s ago%s", why.heard_s, m.rtt_ns and (", round trip %.3f ms"):format(m.rtt_ns / 1e6) or "")
  else say("it has not answered us") end
  if why.probe then say("a probe has waited %d ms for an answer, and waits %d ms more", why.probe.since_ms, why.probe.ends_ms) end
  local s = why.suspicion
  if s then
    say("suspected for %d ms by %s (%d of %d confirmations); dead in %d ms unless it refutes", s.since_ms,
      table.concat(s.accusers, ", "), #s.accusers - 1, s.wanted, s.ends_ms)
  end
  if why.held_for_ms then
    say("held dead for flapping (%.1f points), for %d s more if it stays stable; a restart ends that",
      why.flap_points, math.ceil(why.held_for_ms / 1000))
  end
  if why.health > 0 then say("our own local health is %d (0 is good), so our probes take %d times as long", why.health, why.health + 1) end
  for _, fact in ipairs(why.facts) do
    local by = fact.by and " by " .. fact.by or ""
    if fact.asked then by = (" (%d asked, %d of them got no answer either)"):format(fact.asked, fact.nacks) end
    say("%9.1f s ago  %s%s [%s]", fact.ago_ms / 1000, fact.text, by, fact.incarnation)
  end
  return table.concat(lines, "\n")
end

---@class SwimReplay
---@field steps integer  recorded inputs; `ms` of the last one since the beginning; `sent` datagrams
---@field ms integer
---@field sent integer
---@field same boolean    each step did the same as in the recorded node; else `diverged` is the first step after a difference
---@field diverged integer?
---@field cut_at integer?  the recording ends within a step, at this byte: its node was killed
---@field events { at_ms: integer, kind: string, name: string, step: integer }[]  the first 100,000
---@field members SwimMember[]  at the end
---@field counts table
---@field why table<string, SwimWhy>  for the requested names, at the end; `swim.explain` makes it text

--- Replay a member's recording (its option `record`) offline: the same inputs give the same decisions. With `until_ms`, stop after the
--- first input past it, and give `why` for members at that point.
---@param world World
---@param path string
---@param options? { until_ms: integer?, why: string[]? }
---@return SwimReplay? result
---@return string? err
---@return string? code  "MALFORMED", or the system's, such as "ENOENT"
function swim.replay(world, path, options)
  local bytes, err, code = world:read_file(path)
  if not bytes then return nil, err, code end
  local result
  result, err, code = core.replay(bytes, options or {})
  if not result then return nil, ("%s: %s"):format(path, err), code end
  return result
end

--- The fields of the config for behaviour, not for identity and addresses: name to checker, without `profile`.
swim.tunables = {}
for name, field in sorted(swim.config.fields) do
  if field.kind == "optional" and name ~= "advertise" and name ~= "generation" then swim.tunables[name] = field end
end
local questionable = { profile = swim.config.fields.profile }
for name, field in sorted(swim.tunables) do questionable[name] = field end

--- The question of `swim.predict`. Times of the network are one way.
swim.question = schema.record({
  n = schema.integer { min = 3, max = 5000, doc = "members" },
  crashes = schema.integer { min = 0, max = 1000, default = 20, doc = "members that die, one at a time; fewer than half" },
  rest_s = schema.integer { min = 1, max = 3600, default = 30, doc = "virtual seconds at rest, before" },
  latency_ms = schema.number { min = 0, max = 10000, default = 0.5, doc = "of each datagram, at least" },
  jitter_ms = schema.number { min = 0, max = 10000, default = 0.5, doc = "mean of the exponential added to it" },
  loss = schema.number { min = 0, max = 0.9, default = 0, doc = "share of datagrams" },
  seed = schema.integer { min = 0, max = 2 ^ 53 | 0, default = 1 },
  config = schema.optional(schema.record(questionable)),
}, function (q)
  if 2 * q.crashes >= q.n then return ("crashes must be fewer than half of n = %d"):format(q.n) end
end)

---@class SwimPrediction  seconds are since a crash; nil without crashes
---@field bytes_per_s number      UDP payload that each member sends at rest
---@field datagrams_per_s number
---@field false_suspicions_per_hour number  in the whole cluster at rest
---@field false_deaths integer    living members that any other declared dead, over the whole run
---@field suspected_s { p50: number, p99: number, max: number }?   at the first member that suspects
---@field first_dead_s { p50: number, p99: number, max: number }?  at the first member that declares it dead
---@field all_dead_s { p50: number, p99: number, max: number }?    at the last member member
---@field undecided integer  crashes that some member never noticed
---@field virtual_s number

--- Predict the behaviour of a configuration in a cluster of a given size on a given network: run the members in virtual time, at rest
--- and through crashes. The same question gives the same answer. The call blocks (about ten seconds for 2,000 members and 20
--- crashes), so do not call it on a node that does other work.
---
---     local p = assert(swim.predict { n = 2000, loss = 0.02, config = { profile = "wan" } })
---     print(p.all_dead_s.p99, p.bytes_per_s)
---@param question table  see `swim.question`; `config` holds the differences from the lan profile
---@return SwimPrediction? prediction
---@return string? err  every problem of the question at once
---@return string? code  "CONFIG"
function swim.predict(question)
  local checked, err = swim.question(question)
  if not checked then return nil, "swim: predict: " .. err, "CONFIG" end
  checked.config = checked.config or {}
  return core.predict(checked)
end

---@param world World  `require "shoal.core.world".current()`
---@param config table  see `swim.config`
---@param on_event fun(event: SwimEvent)  must not wait; may call anything, including `close`. A raise is an incident at `swim.callback`.
---@param on_notice? fun(notice: SwimNotice)  of nodes that cannot be members together; the same comes again each minute
---@return Swim? swim
---@return string? err  every problem of the config at once
---@return string? code  "CONFIG", or the system's, such as "EADDRINUSE"
function swim.open(world, config, on_event, on_notice)
  local checked, err = swim.config(config)
  if not checked then return nil, "swim: " .. err, "CONFIG" end
  return core.open(world, checked, on_event, on_notice)
end

--- Modules on top of the events (lua/shoal/member/swim/); on_event feeds each with `:feed(event)`:
swim.settle = require("shoal.member.swim.settle").open       -- one event for a burst, once it has settled
swim.partition = require("shoal.member.swim.partition").open -- many members lost at once: which, how sure, and their return
swim.journal = require("shoal.member.swim.journal").open     -- the last events, numbered, for readers of any speed

return swim
