--- shoal.detector: the name by which people require it. It lives in member/.
return require "shoal.member.detector"
