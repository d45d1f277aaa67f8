// The driver and a worker of BullMQ for `scripts/bench jobs`, as in its documentation, in a process each.
//
//   node bullmq.js work PORT SLOTS COMMAND [ARGUMENT...]   SLOTS jobs at a time; spawns the command for each
//   node bullmq.js drive PORT                              lines "run COUNT OUTSTANDING" on stdin; "done NS" answers each
//
// A worker prints "ready" when it is connected. The command's stdout and stderr are pipes, read to their end.
"use strict";
const { spawn } = require("node:child_process");
const readline = require("node:readline");
const { Queue, QueueEvents, Worker } = require("bullmq");

const [what, port, ...rest] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };

function giveUp(error) {
  process.stderr.write(`bullmq.js ${what}: ${error.stack || error}\n`);
  process.exit(2);
}

function command(argv) {
  return new Promise((resolve, reject) => {
    const child = spawn(argv[0], argv.slice(1), { stdio: ["ignore", "pipe", "pipe"] });
    let said = 0;
    child.stdout.on("data", (bytes) => { said += bytes.length; });
    child.stderr.on("data", (bytes) => { said += bytes.length; });
    child.on("error", reject);
    child.on("close", (status) => (status === 0 ? resolve({ status, said }) : reject(new Error(`status ${status}`))));
  });
}

async function work(slots, argv) {
  const worker = new Worker("bench", () => command(argv), { connection, concurrency: Number(slots) });
  worker.on("error", giveUp);
  worker.on("failed", (_, error) => giveUp(error));
  await worker.waitUntilReady();
  console.log("ready");
}

async function drive() {
  const queue = new Queue("bench", { connection });
  const events = new QueueEvents("bench", { connection });
  events.setMaxListeners(0);
  await Promise.all([queue.waitUntilReady(), events.waitUntilReady()]);
  console.log("ready");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const asked = /^run (\d+) (\d+)$/.exec(line);
    if (!asked) throw new Error(`expected run COUNT OUTSTANDING, found ${line}`);
    let left = Number(asked[1]);
    const began = process.hrtime.bigint();
    const caller = async () => {
      while (left > 0) {
        left -= 1;
        const job = await queue.add("true", { number: left });
        const result = await job.waitUntilFinished(events);
        if (result.status !== 0) throw new Error(`a job ended with ${JSON.stringify(result)}`);
      }
    };
    await Promise.all(Array.from({ length: Number(asked[2]) }, caller));
    console.log(`done ${process.hrtime.bigint() - began}`);
  }
  process.exit(0);
}

(what === "work" ? work(rest[0], rest.slice(1)) : drive()).catch(giveUp);
