// @ts-check
/**
 * Node's `ws`: `send()` to each client. Redis is read by hand, which costs less than any client.
 *
 * Usage: node ws_send.mjs <folder of ws> <port>; BENCH_REDIS_PORT and BENCH_CHANNEL are set.
 */
import { createConnection } from "node:net";
import { createRequire } from "node:module";
import { argv, env } from "node:process";

const HELLO = '{"type":"job"}';
const { WebSocketServer } = createRequire(import.meta.url)(argv[2]);
const server = new WebSocketServer({ port: Number(argv[3]), host: "127.0.0.1", backlog: 4096 });
server.on("connection", (/** @type {any} */ socket) => socket.send(HELLO));

let rest = Buffer.alloc(0);
const redis = createConnection(Number(env.BENCH_REDIS_PORT), "127.0.0.1");
redis.write(`SUBSCRIBE ${env.BENCH_CHANNEL}\r\n`);
redis.on("data", (data) => {
  rest = rest.length ? Buffer.concat([rest, data]) : data;
  let answer;
  while ((answer = takeAnswer()) !== null) {
    if (String(answer[0]) === "message") tellAll(/** @type {Buffer} */ (answer[2]));
  }
});

/** @param {Buffer} published What stands before the first line break is for livejobs' servers. */
function tellAll(published) {
  const message = published.subarray(published.indexOf(10) + 1).toString();
  for (const client of server.clients) client.send(message);
}

/**
 * The next answer of Redis, an array of strings and numbers.
 *
 * @returns {(Buffer | number)[] | null} Null: it is not complete.
 */
function takeAnswer() {
  let at = 0;
  const line = () => {
    const end = rest.indexOf("\r\n", at);
    const text = end < 0 ? "" : rest.toString("latin1", at, end);
    at = end + 2;
    return text;
  };
  const head = line();
  if (!head) return null;
  const parts = [];
  for (let left = Number(head.slice(1)); left > 0; left -= 1) {
    const start = line();
    if (!start) return null;
    const value = Number(start.slice(1));
    if (start[0] === ":") {
      parts.push(value);
    } else {
      if (rest.length < at + value + 2) return null;
      parts.push(rest.subarray(at, at + value));
      at += value + 2;
    }
  }
  rest = rest.subarray(at);
  return parts;
}
