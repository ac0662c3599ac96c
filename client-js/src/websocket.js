// @ts-check
/** WebSocket: the transport that is tried first. */

/** @typedef {import("./session.js").Ending} Ending */
/** @typedef {import("./session.js").Session} Session */

/**
 * Keep a socket until it closes.
 *
 * @param {Session} session
 * @returns {Promise<Ending>}
 */
export function webSocket(session) {
  return new Promise((resolve) => {
    const { WebSocket, url } = session.options;
    const { href } = new URL(url + "/v1/ws", /** @type {any} */ (globalThis.location));
    const socket = new WebSocket(href.replace("http", "ws"));
    socket.onopen = () => {
      session.changed = (op, item) => socket.send(JSON.stringify({ op, ...item }));
      const { token } = session;
      if (token) session.changed("auth", { token });
      for (const item of session.items()) session.changed("subscribe", item);
    };
    socket.onmessage = ({ data }) => session.heard(data);
    socket.onclose = ({ code }) => resolve({ status: code });
    // Where WebSocket is not the browser's own, an error that nobody takes may end the program.
    session.stop = socket.onerror = () => socket.close();
  });
}
