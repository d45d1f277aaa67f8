--- The smallest job: one command, once.
---   shoal submit examples/hello.lua --connect 127.0.0.1:7000
return {
  name = "hello",
  workflows = {
    greet = { command = "echo hello from $SHOAL_PART on $(uname -n)" },
  },
}
