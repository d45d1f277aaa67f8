--- shoal.spec: the name by which people require it. It lives in sim/.
return require "shoal.sim.spec"
