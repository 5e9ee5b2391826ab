// Starts the real server for a test, on free ports, with a config and a data directory of its own in a temporary folder.
// It builds nothing: the binary and the components come from `make build guests`.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const BINARY = process.env.WHARF ?? join(ROOT, "target/debug/wharf");
const DASHBOARD = join(ROOT, "target/guests/wasm32-wasip2/release/dashboard.wasm");

/** Compiling the component is part of a first start; this is long for a busy machine, and only a failing test waits for it. */
const START_TIMEOUT_MS = 60_000;

/** A server that can be stopped and started again on the same data and the same port. */
export class Server {
  #folder;
  #child;
  #port = 0;
  #output = "";

  /** Starts a server; `close` ends it and removes what it wrote. */
  static async start() {
    for (const file of [BINARY, DASHBOARD]) {
      await access(file).catch(() => {
        throw new Error(`${file} is missing: run \`make build guests\` first`);
      });
    }
    const server = new Server();
    server.#folder = await mkdtemp(join(tmpdir(), "wharf-browser-"));
    await server.run();
    return server;
  }

  /** The address of agents and pages, without a slash at its end. */
  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** The dashboard's page. */
  get page() {
    return `${this.url}/r/dashboard/`;
  }

  /** Where agents connect. */
  get agents() {
    return `ws://127.0.0.1:${this.#port}/agent`;
  }

  /** Starts the process: the first time on a free port, then on the same one. Its data is beside its config. */
  async run() {
    const config = join(this.#folder, "wharf.toml");
    await writeFile(config, this.#config());
    this.#child = spawn(BINARY, ["run", "--config", config], { cwd: this.#folder, stdio: ["ignore", "pipe", "pipe"] });
    const child = this.#child;
    child.stderr.setEncoding("utf8").on("data", (text) => {
      this.#output += text;
    });
    const listening = new Promise((resolve, reject) => {
      createInterface({ input: child.stdout }).on("line", (line) => {
        this.#output += `${line}\n`;
        const [, port] = /^listening agents http:\/\/127\.0\.0\.1:(\d+)/.exec(line) ?? [];
        if (port !== undefined) resolve(Number(port));
      });
      child.once("error", reject);
      child.once("exit", (code, signal) => reject(new Error(`the server ended with ${code ?? signal}:\n${this.#output}`)));
      setTimeout(() => reject(new Error(`the server does not listen:\n${this.#output}`)), START_TIMEOUT_MS).unref();
    });
    this.#port = await listening;
  }

  /** Ends the process at once, as a crash would. */
  async kill() {
    if (this.#child === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }

  async close() {
    await this.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }

  #config() {
    // A JSON string is a TOML string too.
    const text = JSON.stringify;
    return `
[listen]
agents = "127.0.0.1:${this.#port}"
admin = "127.0.0.1:0"

[types.system_metrics]
[types.ethereum_metrics]

[receivers.dashboard]
component = ${text(DASHBOARD)}
types = ["system_metrics", "ethereum_metrics"]
live = true
`;
  }
}
