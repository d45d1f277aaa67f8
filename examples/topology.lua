--- A cluster for one machine: a gate, and two datacenters with a manager and two workers each. Run it with
---   shoal up examples/topology.lua
return {
  gates = { { name = "g1", bind = "127.0.0.1:7000" } },
  datacenters = {
    a = { managers = { { bind = "127.0.0.1:7001" } }, workers = { { cores = 4 }, { cores = 4 } } },
    b = { managers = { { bind = "127.0.0.1:7002" } }, workers = { { cores = 4 }, { cores = 4 } } },
  },
}
