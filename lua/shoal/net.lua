--- shoal.net: the name by which people require it. It lives in wire/.
return require "shoal.wire.net"
