// @ts-check
/** The bar above every page: how the connection is, who is signed in, light or dark. */

import { askToSignIn, context } from "./context.js";
import { byId, setAttribute, setShown, setText } from "./dom.js";
import { drawSoon } from "./frames.js";
import { showTheme } from "./theme-switch.js";

/** @typedef {import("livejobs").ConnectionState} ConnectionState */
/** @typedef {import("livejobs").JobClient} JobClient */

/** Tells the other tabs of this browser that somebody signed out. */
const tabs = new BroadcastChannel(`livejobs${context.base}`);

/**
 * Bring the bar to life.
 *
 * @param {JobClient} client
 */
export function showTop(client) {
  showTheme();
  setText(byId("owner", HTMLElement), context.owner);
  const node = byId("connection", HTMLElement);
  const draw = () => drawConnection(node, client.state);
  client.on("state", () => drawSoon(draw));
  client.on("state", ({ error }) => leaveWhereRefused(error));
  draw();
  const signOut = byId("sign-out", HTMLButtonElement);
  setShown(signOut, context.canSignOut);
  signOut.addEventListener("click", () => void leave(client));
  tabs.addEventListener("message", askToSignIn);
}

/** @param {JobClient} client */
async function leave(client) {
  await client.request("DELETE", "/v1/session");
  client.close();
  tabs.postMessage("signed out");
  askToSignIn();
}

/**
 * Where the session has ended, go to the sign-in, which leads back here.
 *
 * @param {Error | null} error What came of a request.
 */
export function leaveWhereRefused(error) {
  const status = error && "status" in error ? error.status : 0;
  if (context.canSignOut && (status === 401 || status === 4401)) askToSignIn();
}

/**
 * @param {HTMLElement} node
 * @param {ConnectionState} state
 */
function drawConnection(node, state) {
  const [mood, words, explanation] = connectionWords(state);
  setAttribute(node, "data-mood", mood);
  setText(node, words);
  setAttribute(node, "title", explanation);
}

/**
 * How the connection is: a mood for its colour, a word or two, and a sentence.
 *
 * @param {ConnectionState} state
 * @returns {[string, string, string]}
 */
export function connectionWords({ status, transport, degraded }) {
  if (status === "live" && degraded)
    return ["delayed", "Live, once a second", "Redis is away: updates come from the database."];
  if (status === "live" && transport === "polling")
    return ["delayed", "Live, by polling", "The network lets no open connection through."];
  if (status === "live") return ["live", "Live", `Updates come at once, over ${names[transport ?? "sse"]}.`];
  if (status === "offline")
    return ["offline", "Offline, trying again", "What is shown may be old until the server answers."];
  if (status === "stopped")
    return ["offline", "Not live", "The server refused. Load the page again."];
  if (status === "idle") return ["idle", "Up to date", "Nothing that is shown can change by itself."];
  return ["connecting", "Connecting", "The server has not answered yet."];
}

const names = { websocket: "WebSocket", sse: "server-sent events", polling: "polling" };
