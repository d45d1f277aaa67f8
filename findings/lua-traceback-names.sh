#!/usr/bin/env bash
# Lua 5.4.4 (Debian 12, lua5.4 5.4.4-3+deb12u1): a module that is loaded under two names makes tracebacks differ from process to process.
#
# debug.traceback names a global function by the first module in package.loaded that holds it, in the order of a hash table whose seed
# differs in every process. When one module table is there twice ("room.tool", and "tool" that returns require "room.tool"), the same
# error in the same program is at times "in function 'tool.fail'" and at times "in function 'room.tool.fail'". Logs that hold tracebacks
# are then not reproducible, although nothing in the program depends on chance.
#
# Prints how often each name was seen in 60 runs; exits 1 when only one is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -q lua5.4=5.4.4-3+deb12u1 >/dev/null
dpkg -x lua5.4_*.deb root
lua=$folder/root/usr/bin/lua5.4
mkdir room
cat >room/tool.lua <<'LUA'
local tool = {}
function tool.fail() error "it failed" end
return tool
LUA
echo 'return require "room.tool"' >tool.lua
cat >program.lua <<'LUA'
local tool = require "tool"
local _, trace = xpcall(function () tool.fail() end, function (err) return debug.traceback(err) end)
print(trace:match "in function '([%w.]+)'\n[^\n]*program.lua")
LUA
"$lua" -v
for _ in $(seq 60); do LUA_PATH="$folder/?.lua" "$lua" program.lua; done | sort | uniq -c | tee seen
[ "$(wc -l <seen)" -ge 2 ]
