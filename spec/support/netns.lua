--- A private network for a cluster of real processes: each address has a network namespace of its own, as if it were a machine, and a
--- bridge joins them. A packet filter (nftables) at the bridge cuts them from each other, one way or both; nobody is told, as when a
--- cable is pulled. Nodes without keys bind to loopback only, so the machines are called 127.0.1.1, 127.0.1.2, ...
---
---     local missing = netns.missing()          -- why this machine cannot do that, or nil: for `pending`
---     local net = netns.open(c, { "127.0.1.1", "127.0.1.2" })
---     c:node("manager", { at = "127.0.1.1", "--bind", "127.0.1.1:7000", ... })
---     net:cut("127.0.1.1", "127.0.1.2")        -- both ways; net:cut_one_way(from, to); net:heal()
---     net:close()
---
--- Commands of the cluster without `at` run on a machine of their own, 127.0.1.250, that is never cut.
--- The machine's own network is never touched. When the spec ends, for whatever reason (also SIGKILL), its pipe to the keeper of the
--- namespaces ends, and the keeper kills every process that is in one of them, stopped ones too.
local uv = require "luv"

local netns = {}
netns.__index = netns

netns.CLIENT = "127.0.1.250"

--- The keeper: arguments are the network namespace of the spec, and the addresses. It runs in the namespace of the bridge.
local KEEPER = [[
set -eu
PATH=$PATH:/usr/sbin:/sbin
outer=$1; shift
own=$(readlink /proc/self/ns/net)
[ "$own" != "$outer" ] || { echo "this is no namespace of its own" >&2; exit 1; }
all="$own"
# Read the pipe even when setup fails: the spec waits for our words, not for our end.
ip link set lo up
ip link add shoal0 type bridge
ip link set shoal0 up
echo "table bridge cut {
  set pairs { type ipv4_addr . ipv4_addr; }
  chain forward {
    type filter hook forward priority 0;
    ip saddr . ip daddr @pairs drop
  }
}" | nft -f -
n=0
for address in "$@"; do
  n=$((n + 1))
  setpriv --pdeathsig KILL unshare --net sleep 100000 </dev/null >/dev/null 2>&1 &
  holder=$!
  i=0
  while ns=$(readlink /proc/$holder/ns/net) && [ "$ns" = "$own" ]; do
    i=$((i + 1)); [ $i -lt 500 ] || { echo "no second namespace" >&2; exit 1; }
    sleep 0.01
  done
  all="$all $ns"
  ip link add v$n type veth peer name eth0 netns $holder
  ip link set v$n master shoal0 up
  nsenter --net=/proc/$holder/ns/net sh -euc "
    ip link set lo up
    ip address del 127.0.0.1/8 dev lo
    ip address add 127.0.0.1/32 dev lo
    echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
    ip address add $address/24 dev eth0
    ip link set eth0 up"
  echo "host $address $holder"
done
echo ready
cat >/dev/null || true
for round in 1 2 3; do
  for of in /proc/[0-9]*; do
    pid=${of#/proc/}
    [ $pid != $$ ] || continue
    ns=$(readlink $of/ns/net 2>/dev/null) || continue
    [ "$ns" != "$outer" ] || continue
    for mine in $all; do [ "$ns" != "$mine" ] || kill -KILL $pid 2>/dev/null || true; done
  done
done
]]

local function own_namespace() return assert(uv.fs_readlink "/proc/self/ns/net") end

local function keeper_argv(addresses)
  return { "setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", KEEPER, "keeper", own_namespace(), table.unpack(addresses) }
end

local function found(program)
  for folder in ((os.getenv "PATH" or "") .. ":/usr/sbin:/sbin"):gmatch "[^:]+" do
    if uv.fs_access(folder .. "/" .. program, "X") then return true end
  end
end

local known

--- Why such a network cannot be had here, for people; nil when it can. Tries it once.
---@return string?
function netns.missing()
  if known ~= nil then return known or nil end
  known = false
  if uv.getuid() ~= 0 then
    known = "a network namespace needs root, and this user is not"
    return known
  end
  for _, program in ipairs { "nft", "ip", "unshare", "nsenter", "setpriv" } do
    if not found(program) then
      known = ("%s is not installed (scripts/setup test)"):format(program)
      return known
    end
  end
  local cluster = require "spec.support.cluster"
  local c = cluster.new()
  local p = c:spawn(keeper_argv { netns.CLIENT })
  cluster.wait("a keeper of namespaces", function () return p.code or p.out:find "ready" end)
  if not p.out:find "ready" then
    known = "this kernel gives no bridge of network namespaces with a filter: " .. (p.err:gsub("%s+$", ""):gsub("\n", "; "))
  end
  p:close_stdin()
  c:close()
  return known or nil
end

--- One machine for each address, and one for commands. The cluster's processes start there from here on.
---@param c table  a cluster (spec/support/cluster.lua)
---@param addresses string[]
function netns.open(c, addresses)
  local all = { netns.CLIENT, table.unpack(addresses) }
  local self = setmetatable({ cluster = c, hosts = {}, cuts = {} }, netns)
  self.keeper = c:spawn(keeper_argv(all))
  self.keeper:wait_for("ready\n", "out")
  for address, pid in self.keeper.out:gmatch "host (%S+) (%d+)\n" do self.hosts[address] = math.tointeger(pid) end
  c.net = self
  return self
end

--- The words that start a program on a machine.
---@param address? string  the machine for commands without
---@return string[]
function netns:inside(address)
  local pid = self.hosts[address or netns.CLIENT]
  if not pid then error("no machine has the address " .. tostring(address), 3) end
  return { "nsenter", ("--net=/proc/%d/ns/net"):format(pid), "--", "setpriv", "--pdeathsig", "KILL", "--" }
end

--- Change the filter. Elements that are there already may be added, and are removed only if they are there.
local function filter(self, verb, pairs_of)
  local text = {}
  for i, pair in ipairs(pairs_of) do text[i] = ("%s element bridge cut pairs { %s . %s }"):format(verb, pair[1], pair[2]) end
  local net = self.cluster.net
  self.cluster.net = nil -- This one runs in the namespace of the bridge.
  local p = self.cluster:spawn { "nsenter", ("--net=/proc/%d/ns/net"):format(self.keeper.pid), "--", "nft", "-f", "-",
    stdin = table.concat(text, "\n") .. "\n", env = { PATH = (os.getenv "PATH" or "") .. ":/usr/sbin:/sbin" } }
  self.cluster.net = net
  p:wait()
  if p.code ~= 0 then error("nft: " .. p.err, 3) end
end

local function drop(self, list)
  for _, pair in ipairs(list) do self.cuts[pair[1] .. " " .. pair[2]] = pair end
  filter(self, "add", list)
end

--- No packet from `from` arrives at `to`; the other way is open.
function netns:cut_one_way(from, to) drop(self, { { from, to } }) end

--- Cut one machine, or several, from others, both ways.
---@param a string | string[]
---@param b string | string[]
function netns:cut(a, b)
  local list = {}
  for _, one in ipairs(type(a) == "table" and a or { a }) do
    for _, other in ipairs(type(b) == "table" and b or { b }) do
      list[#list + 1], list[#list + 2] = { one, other }, { other, one }
    end
  end
  drop(self, list)
end

--- Heal all cuts, or those between two machines.
---@param a? string
---@param b? string
function netns:heal(a, b)
  local list = {}
  for key, pair in next, self.cuts do -- order-free: a set
    if not a or pair[1] == a and pair[2] == b or pair[1] == b and pair[2] == a then
      list[#list + 1] = pair
      self.cuts[key] = nil
    end
  end
  if #list > 0 then filter(self, "delete", list) end
end

--- End the namespaces and all that runs in them. Idempotent.
function netns:close()
  if self.cluster.net ~= self then return end
  self.cluster.net = nil
  self.keeper:close_stdin()
  self.keeper:wait()
end

return netns
