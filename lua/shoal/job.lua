--- shoal.job: the name by which people require it. It lives in job/.
return require "shoal.job.spec"
