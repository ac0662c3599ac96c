// @ts-check
/** `livejobs up` as a child process, with everything that belongs to it, in a folder of its own. */

import { spawn } from "node:child_process";
import { access, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** Longest time until it is ready; the first start on a busy machine takes a while. */
const READY_MS = 90_000;

/**
 * A running livejobs.
 *
 * @typedef {object} System
 * @property {string} url
 * @property {string} page Its URL signs in, once.
 * @property {string} key An API key with every scope.
 * @property {number} pid
 * @property {(method: string, path: string, body?: unknown, key?: string) => Promise<any>} call
 *   Send a request by REST; the answer's JSON.
 * @property {(...words: string[]) => Promise<string>} run Run a command of `livejobs`; its output.
 * @property {() => Promise<void>} stop
 */

/**
 * Start livejobs, and wait until it is ready.
 *
 * @param {Record<string, string>} [settings] For its environment.
 * @returns {Promise<System>}
 * @throws {Error} It did not become ready; the message holds what it said.
 */
export async function up(settings = {}) {
  const folder = await mkdtemp(join(tmpdir(), "livejobs-pages-"));
  const command = await livejobs();
  const env = { ...process.env, ...settings, LIVEJOBS_DATA_DIR: folder };
  const child = spawn(command, ["up", "--port", "0"], { cwd: folder, env });
  const said = await greeting(child);
  const url = new URL(found(said, /page\s+(\S+)/)).origin;
  const key = found(said, /API key\s+(\S+)/);
  return {
    url,
    key,
    page: found(said, /page\s+(\S+)/),
    pid: Number(child.pid),
    call: (method, path, body, other = key) => call(url + path, method, other, body),
    run: (...words) => run(command, words, { cwd: folder, env }),
    stop: async () => {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** @returns {Promise<string>} The command: `LIVEJOBS` names another than that of `.venv`. */
async function livejobs() {
  const command = process.env["LIVEJOBS"] ?? join(ROOT, ".venv", "bin", "livejobs");
  await access(command);
  return command;
}

/**
 * @param {import("node:child_process").ChildProcessWithoutNullStreams} child
 * @returns {Promise<string>} All it said until it was ready.
 */
function greeting(child) {
  let said = "";
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill("SIGTERM");
      reject(new Error(`livejobs was not ready in time:\n${said}`));
    }, READY_MS);
    /** @param {Buffer} chunk */
    const hear = (chunk) => {
      said += chunk;
      if (!said.includes("Ctrl-C stops")) return;
      clearTimeout(timer);
      resolve(said);
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    child.once("exit", (code) => {
      clearTimeout(timer);
      reject(new Error(`livejobs ended with exit code ${code}:\n${said}`));
    });
  });
}

/**
 * @param {string} text
 * @param {RegExp} pattern
 * @returns {string} Its first group.
 */
function found(text, pattern) {
  const value = pattern.exec(text)?.[1];
  if (value === undefined) throw new Error(`livejobs did not say ${pattern}:\n${text}`);
  return value;
}

/**
 * @param {string} url
 * @param {string} method
 * @param {string} key
 * @param {unknown} body FormData is sent as it is, anything else as JSON.
 */
async function call(url, method, key, body) {
  /** @type {Record<string, string>} */
  const headers = { "X-API-Key": key };
  const isForm = body instanceof FormData;
  if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
  const sent = body === undefined ? {} : { body: isForm ? body : JSON.stringify(body) };
  const response = await fetch(url, { method, headers, ...sent });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

/**
 * @param {string} command
 * @param {string[]} words
 * @param {import("node:child_process").SpawnOptionsWithoutStdio} options
 * @returns {Promise<string>}
 */
function run(command, words, options) {
  const child = spawn(command, words, options);
  let said = "";
  child.stdout.on("data", (chunk) => (said += chunk));
  return new Promise((resolve, reject) => {
    child.once("exit", (code) => {
      if (code === 0) resolve(said);
      else reject(new Error(`livejobs ${words.join(" ")} ended with exit code ${code}`));
    });
  });
}
