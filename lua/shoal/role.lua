--- shoal.role: the name by which people require it. It lives in node/.
return require "shoal.node.role"
