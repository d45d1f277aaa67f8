--- tenure: the times of leases, each derived from the node's settings, so that they fit together.
---
---   ttl      how long a grant or a renewal counts. At least twice the time in which membership detects a death: a leader that died is then
---            known as dead before the leases that it granted end, and its executors can tell its restart from a cut between the two. A
---            gate's leases last twice as long, for its executors are tiers, and the way to them is long.
---   renewal  every third of it, with jitter: two may be lost.
---   stop     an executor that lost its lease ends the part within STOP_MS; the leader waits STOPPED_MS from its own deadline before it grants
---            the part elsewhere. The holder's deadline comes before the grantor's (tier/lease.lua), so no two of them run.
---   grace    how long an executor keeps a part whose leader is down: detection + election + one heartbeat. A tier of one elects nobody: its
---            "election" is the restart that an operator makes, `restart_ms`. Nobody else grants the part meanwhile, but a gate above
---            may start it in another datacenter; then fences decide which result counts.
---   return   a leader that begins to lead waits at least so long for executors whose leases it finds in its log: until each has tried to
---            connect once more, and the time in which a lost one is noticed. An orphan whose leader lives again must have renewed before
---            that, less the time in which membership tells it so.
local tenure = {}

local REDIAL_MS = 30000    -- The longest wait of the transport between two tries to connect.
local GONE_HEARTBEATS = 10 -- Membership notices a lost worker sooner.

--- The longest time in which a group of 100 members detects a death, by profile: a period of probes, and for the suspicion six times log10
--- of 100 periods.
local DETECTION_MS = { ["local"] = 2600, lan = 13000, wan = 65000 }

tenure.STOP_MS = 2000
tenure.STOPPED_MS = tenure.STOP_MS + 1000 -- And a child's exit, and the loop's turn.

---@param config table  the node's
function tenure.detection_ms(config) return DETECTION_MS[config.profile] or DETECTION_MS.lan end

---@param config table
---@param tier "gates"|"managers"  that grants
---@return integer
function tenure.ttl_ms(config, tier)
  local ttl_ms = math.max(config.lease_ms, 2 * tenure.detection_ms(config)) -- lease_ms has a maximum at which twice it is valid.
  return tier == "gates" and 2 * ttl_ms or ttl_ms
end

---@param config table
---@param gone_ms? integer  in which a lost executor is noticed, where that is not membership's to do
---@return integer
function tenure.return_ms(config, gone_ms)
  return REDIAL_MS + (gone_ms or GONE_HEARTBEATS * config.heartbeat_ms) + 2 * config.heartbeat_ms
end

--- How long an orphan waits for an answer of its leader that lives again.
---@return integer
function tenure.back_ms(config) return math.floor(0.95 * tenure.return_ms(config)) - tenure.detection_ms(config) end

---@param config table
---@return integer
function tenure.grace_ms(config) return tenure.detection_ms(config) + config.restart_ms + config.heartbeat_ms end

return tenure
