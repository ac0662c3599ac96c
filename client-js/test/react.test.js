// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { createElement } from "react";
import { renderToString } from "react-dom/server";

import { JobClientContext, useJob, useJobClient, useJobs } from "../src/react.js";
import { job, settle, start, subscribed } from "./fakes.js";

/** What a component sees when a server draws it. */
function Page() {
  const { view, entries, ended, error } = useJob("a", { entries: true });
  const jobs = useJobs("mine");
  return createElement("p", null, JSON.stringify({ view, entries, ended, error, jobs }));
}

test("a server draws nothing of a job, and opens no connection", async () => {
  const { server, client } = start();
  const watch = client.watch("a");
  await settle();
  await server.socket.open(subscribed(), job("1-0"));
  assert.ok(watch.view);
  const provider = createElement(JobClientContext.Provider, { value: client }, createElement(Page));
  const drawn = renderToString(provider).replaceAll("&quot;", '"');
  const nothing = { view: null, entries: [], ended: false, error: null, jobs: [] };
  assert.equal(drawn, `<p>${JSON.stringify(nothing)}</p>`);
  assert.equal(client.peek("feed mine"), undefined);
  assert.equal(server.sockets.length, 1);
});

test("without a provider, all components use the same client", () => {
  /** @type {unknown[]} */
  const clients = [];
  const Component = () => void clients.push(useJobClient());
  renderToString(createElement("p", null, createElement(Component), createElement(Component)));
  assert.equal(clients.length, 2);
  assert.equal(clients[0], clients[1]);
});
