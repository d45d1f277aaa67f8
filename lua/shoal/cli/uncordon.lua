--- shoal uncordon: a cordoned or drained worker gets parts again.
return require("shoal.cli.hold").command "uncordon"
