--- shoal.lease: the name by which people require it. It lives in tier/.
return require "shoal.tier.lease"
