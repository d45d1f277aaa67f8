--- shoal.backoff: the name by which people require it. It lives in base/.
return require "shoal.base.backoff"
