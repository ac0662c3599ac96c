// @ts-check
/**
 * Shows how much an app's bundle grows by the client, minified and gzipped, and fails where that
 * is too much. What is imported when it is asked for only, and what is somebody else's, is left
 * out: `npm run size`.
 */

import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const LIMITS = /** @type {const} */ ([
  { entry: "src/index.js", name: "livejobs, all three transports", bytes: 5000, left: [] },
  {
    entry: "src/share.js",
    name: "share: true, when asked for",
    bytes: 2500,
    left: ["./client.js"],
  },
  {
    entry: "src/react.js",
    name: "livejobs/react, beside it",
    bytes: 1000,
    left: ["react", "./default.js"],
  },
  {
    entry: "src/element.js",
    name: "livejobs/element, beside it",
    bytes: 3000,
    left: ["./default.js"],
  },
]);

/** @param {(typeof LIMITS)[number]} limit */
async function size({ entry, left }) {
  const { outputFiles } = await build({
    absWorkingDir: new URL("..", import.meta.url).pathname,
    entryPoints: [entry],
    external: ["./share.js", ...left],
    bundle: true,
    format: "esm",
    minify: true,
    target: "es2022",
    write: false,
  });
  return gzipSync(outputFiles[0]?.contents ?? "", { level: 9 }).length;
}

let tooLarge = false;
for (const limit of LIMITS) {
  const bytes = await size(limit);
  tooLarge ||= bytes > limit.bytes;
  console.log(`${String(bytes).padStart(5)} of ${limit.bytes} bytes  ${limit.name}`);
}
process.exit(tooLarge ? 1 : 0);
