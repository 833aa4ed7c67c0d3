"use strict";
// The worker that `undercroft lend run` is measured against: it connects with TLS and an nkey, keeps a request for work
// open, renews while a child process runs, and reports. It knows no consent, no ledger, no policy and no sandbox, and
// trusts whatever it is told to run.
//
// usage: worker.js HOST:PORT CA_FILE SEED_FILE

const { execFile } = require("node:child_process");
const { readFileSync } = require("node:fs");
const { setTimeout: rest } = require("node:timers/promises");
const { connect, nkeyAuthenticator, JSONCodec } = require("nats");

// As the daemon's: the longest poll and its answer, two looks at the connection, two renewals, a try in vain.
const POLL_MS = 60_000;
const PING_MS = 20_000;
const BEAT_MS = 2_000;
const ANSWER_MS = 5_000;
const RETRY_MS = 1_000;

const json = JSONCodec();

async function ask(nats, subject, message, limitMs) {
  const answer = await nats.request(subject, json.encode(message), { timeout: limitMs });
  return json.decode(answer.data);
}

function run(assigned) {
  return new Promise((done) => {
    execFile(assigned.program, assigned.arguments, (error, stdout) => {
      done({ job: assigned.job, failed: error ? String(error) : null, output: stdout });
    });
  });
}

async function work(nats, assigned) {
  const beat = setInterval(() => {
    ask(nats, "bench.beat", { job: assigned.job }, ANSWER_MS).catch(() => {});
  }, BEAT_MS);
  const ended = await run(assigned);
  clearInterval(beat);
  await ask(nats, "bench.out", ended, ANSWER_MS);
}

async function main() {
  const [server, caFile, seedFile] = process.argv.slice(2);
  const seed = new TextEncoder().encode(readFileSync(seedFile, "utf8").trim());
  const nats = await connect({
    servers: server,
    tls: { caFile },
    authenticator: nkeyAuthenticator(seed),
    inboxPrefix: "_INBOX_bench",
    pingInterval: PING_MS,
    maxReconnectAttempts: -1,
  });
  for (;;) {
    try {
      const answer = await ask(nats, "bench.want", {}, POLL_MS);
      if (answer.job) await work(nats, answer);
    } catch (error) {
      console.error(String(error));
      await rest(RETRY_MS);
    }
  }
}

main();
