--- shoal cordon: a worker gets no new parts; those that run there go on.
return require("shoal.cli.hold").command "cordon"
