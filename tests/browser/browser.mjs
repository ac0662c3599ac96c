// @ts-check
/**
 * A real Chromium for tests, driven by Playwright: the one that npm's @sparticuz/chromium carries,
 * for which nothing has to be installed on the machine.
 *
 * It is unpacked once, into `client-js/node_modules/.cache`. `CHROMIUM_PATH` names another browser,
 * which is needed where there is no such package: anywhere but on Linux on x86-64.
 */

import { execFile } from "node:child_process";
import { createReadStream, createWriteStream } from "node:fs";
import { access, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { createBrotliDecompress } from "node:zlib";

const run = promisify(execFile);

const CLIENT = fileURLToPath(new URL("../../client-js", import.meta.url));
const fromClient = createRequire(join(CLIENT, "package.json"));

/** @type {typeof import("playwright-core")} */
const { chromium } = fromClient("playwright-core");

const FLAGS = ["--disable-gpu", "--font-render-hinting=none"];

/**
 * Start the browser.
 *
 * @param {string[]} [flags] Further ones for its command line.
 * @returns {Promise<import("playwright-core").Browser>}
 * @throws {Error} It cannot run here; the message says what is missing.
 */
export async function launch(flags = []) {
  const { executablePath, env } = await installed();
  return chromium.launch({ executablePath, env, args: [...FLAGS, ...flags] });
}

/**
 * @typedef {object} Installed
 * @property {string} executablePath
 * @property {Record<string, string>} env What to start it with.
 */

/**
 * Find the browser, and unpack it where that has not been done.
 *
 * @returns {Promise<Installed>}
 */
async function installed() {
  const env = /** @type {Record<string, string>} */ ({ ...process.env });
  const given = env["CHROMIUM_PATH"];
  if (given) return { executablePath: given, env };
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Error(
      `npm carries no Chromium for ${process.platform} on ${process.arch}: ` +
        "set CHROMIUM_PATH to the executable of a Chromium or Chrome of this machine",
    );
  }
  const folder = await unpacked();
  env["FONTCONFIG_FILE"] = join(folder, "fonts.conf");
  const executablePath = join(folder, "chromium");
  return { executablePath, env: await withLibraries(executablePath, join(folder, "lib"), env) };
}

/** @returns {Promise<string>} A folder with `chromium`, `lib`, `fonts` and `fonts.conf`. */
async function unpacked() {
  const carried = resolve(dirname(fromClient.resolve("@sparticuz/chromium")), "../..");
  const { version } = JSON.parse(await readFile(join(carried, "package.json"), "utf-8"));
  const cache = join(CLIENT, "node_modules", ".cache");
  const folder = join(cache, `chromium-${version}`);
  if (await isThere(folder)) return folder;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, "unpacking-"));
  try {
    await unpack(join(carried, "bin"), work);
    await writeFile(join(work, "fonts.conf"), fontConfiguration(folder));
    // Whole or not there at all, also for another process that comes at the same time.
    await rename(work, folder);
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    if (!(await isThere(folder))) throw error;
  }
  return folder;
}

/**
 * @param {string} source The package's folder of compressed files.
 * @param {string} target
 */
async function unpack(source, target) {
  /** @param {string} name @param {string} file */
  const decompress = (name, file) =>
    pipeline(
      createReadStream(join(source, name)),
      createBrotliDecompress(),
      createWriteStream(file, { mode: 0o755 }),
    );
  /** @param {string} name */
  const unpackArchive = async (name) => {
    const archive = join(target, `${name}.tar`);
    await decompress(`${name}.tar.br`, archive);
    await run("tar", ["-x", "--no-same-owner", "-f", archive, "-C", target]);
    await rm(archive);
  };
  await Promise.all([
    decompress("chromium.br", join(target, "chromium")),
    unpackArchive("al2023"),
    unpackArchive("fonts"),
  ]);
}

/**
 * The package's own font first, so that pages look the same everywhere.
 *
 * @param {string} folder
 */
const fontConfiguration = (folder) => `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>${folder}/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>${folder}/fonts-cache</cachedir>
  <alias><family>sans-serif</family><prefer><family>Open Sans</family></prefer></alias>
  <alias><family>system-ui</family><prefer><family>Open Sans</family></prefer></alias>
</fontconfig>
`;

/**
 * Add the package's libraries where the machine lacks some.
 *
 * @param {string} executable
 * @param {string} carried Folder of those libraries.
 * @param {Record<string, string>} env
 * @returns {Promise<Record<string, string>>}
 * @throws {Error} Names what is missing all the same.
 */
async function withLibraries(executable, carried, env) {
  if ((await missingLibraries(executable, env)).length === 0) return env;
  const path = [carried, ...(env["LD_LIBRARY_PATH"]?.split(":") ?? [])].join(":");
  const extended = { ...env, LD_LIBRARY_PATH: path };
  const missing = await missingLibraries(executable, extended);
  if (missing.length === 0) return extended;
  throw new Error(
    `Chromium cannot start here, this machine lacks ${missing.join(", ")}: install what brings ` +
      "them, or set CHROMIUM_PATH to the executable of a Chromium that runs",
  );
}

/**
 * @param {string} executable
 * @param {Record<string, string>} env
 * @returns {Promise<string[]>} Names; none also where the machine has no `ldd` to tell.
 */
async function missingLibraries(executable, env) {
  const { stdout } = await run("ldd", [executable], { env }).catch(() => ({ stdout: "" }));
  return [...stdout.matchAll(/^\s*(\S+) => not found$/gm)].map((match) => String(match[1]));
}

/** @param {string} path */
async function isThere(path) {
  return access(path).then(
    () => true,
    () => false,
  );
}
