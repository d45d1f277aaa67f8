--- shoal.leases: the name by which people require it. It lives in run/.
return require "shoal.run.leases"
