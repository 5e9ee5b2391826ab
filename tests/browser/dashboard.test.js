// The dashboard's page, in a real browser, served by the real component in the real server.

import assert from "node:assert/strict";
import { after, before, beforeEach, afterEach, describe, it } from "node:test";

import { Agent, statistics } from "./agent.js";
import { launch } from "./browser.js";
import { Server } from "./server.js";

/** What "live" means: from the server's acknowledgement to the screen. */
const LIVE_MS = 1_000;
/** A lost connection is tried again for as long as it takes, with a pause of at most ten seconds. */
const RECOVERY_MS = 20_000;

describe("the dashboard", () => {
  let browser;
  let server;
  let agent;
  let context;

  before(async () => {
    browser = await launch();
  });
  after(() => browser?.close());

  beforeEach(async () => {
    server = await Server.start();
    agent = await Agent.connect(server.agents);
    context = await browser.newContext();
  });
  afterEach(async () => {
    await context?.close();
    agent?.close();
    await server?.close();
  });

  /** Opens the page and collects what goes wrong in it. */
  async function open() {
    const page = await context.newPage();
    const faults = [];
    page.on("dialog", async (dialog) => {
      faults.push(`dialog: ${dialog.message()}`);
      await dialog.dismiss();
    });
    page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) faults.push(`console: ${message.text()}`);
    });
    const response = await page.goto(server.page);
    await live(page);
    return { page, faults, response };
  }

  const live = (page, timeout = 10_000) => page.locator("#connection[data-state=live]").waitFor({ timeout });

  /** The value of that name and text, in the rows of an agent. */
  const value = (page, id, name, text) =>
    page
      .getByRole("rowgroup")
      .filter({ has: page.getByRole("rowheader", { name: id, exact: true }) })
      .locator("dl > div")
      .filter({ has: page.getByText(name, { exact: true }) })
      .filter({ has: page.getByText(text, { exact: true }) });

  it("says what to do while there is nothing to show", async () => {
    const { page, faults } = await open();
    await page.getByText("wharf agent").waitFor();
    assert.equal(await page.getByRole("table").count(), 0);
    assert.deepEqual(faults, []);
  });

  it("shows a value within a second", async () => {
    const { page, faults } = await open();
    await agent.send(statistics("node-7", { cpu_load: 42.5, network: { received_bytes: 2048 } }));
    await value(page, "node-7", "cpu_load", "42.50").waitFor({ timeout: LIVE_MS });
    await value(page, "node-7", "network.received_bytes", "2.0 KiB").waitFor({ timeout: LIVE_MS });
    await agent.send(statistics("node-7", { cpu_load: 43.5 }));
    await value(page, "node-7", "cpu_load", "43.50").waitFor({ timeout: LIVE_MS });
    assert.equal(await page.getByText("wharf agent").isVisible(), false);
    assert.deepEqual(faults, []);
  });

  it("draws numbers that came one after the other", async () => {
    const { page } = await open();
    for (const cpu_load of [1, 5, 3]) {
      await agent.send(statistics("node-7", { cpu_load }));
      await value(page, "node-7", "cpu_load", String(cpu_load)).waitFor();
    }
    const line = await value(page, "node-7", "cpu_load", "3").locator("path.line").getAttribute("d");
    assert.equal(line.match(/[ML]/g).length, 3, line);
  });

  it("is served with a policy that forbids foreign and inline scripts", async () => {
    const { response } = await open();
    const policy = (await response.allHeaders())["content-security-policy"];
    assert.match(policy, /default-src 'self'/);
    assert.doesNotMatch(policy, /unsafe|script-src|\*/);
  });

  it("shows markup that an agent sends as text", async () => {
    const { page, faults } = await open();
    const script = "<script>alert(1)</script>";
    const image = '<img src=x onerror="alert(2)">';
    const markup = "</dd><svg onload=alert(3)><a href=x>x";
    await agent.send({
      id: script,
      type: "system_metrics",
      data: { type: script, body: { [image]: markup, [script]: { [markup]: 5 } } },
    });
    await value(page, script, image, markup).waitFor();
    await value(page, script, `${script}.${markup}`, "5").waitFor();
    await agent.send({ id: image, type: "system_metrics", data: { [script]: image } });
    await value(page, image, script, image).waitFor();

    const foreign = "main script, main img, main a, main svg:not(dd > svg), body > script";
    assert.equal(await page.locator(foreign).count(), 0);
    // An inline script that the policy had to stop would be a line on the console.
    assert.deepEqual(faults, []);
  });

  it("shows bodies of other shapes and large ones without giving up", async () => {
    const { page, faults } = await open();
    const history = Array.from({ length: 41 }, (_, i) => ({ number: 1234 - i, hash: "0xaa" }));
    const send = (data) => agent.send({ id: "node-7", type: "ethereum_metrics", data });
    await send({});
    await send({ type: "history", body: { history } });
    await send({ type: "block", body: { extraData: "x".repeat(300 * 1024) } });
    await send({ type: "list", body: [1, [2], null] });
    await send({ type: 5, body: { odd: true } });
    await value(page, "node-7", "history", "41 items").waitFor();
    await value(page, "node-7", "history[0].number", "1,234").waitFor();
    await page.getByText("a message of 300.0 KiB, not shown").waitFor();
    await value(page, "node-7", "[1][0]", "2").waitFor();
    await value(page, "node-7", "body.odd", "true").waitFor();
    assert.deepEqual(faults, []);
  });

  it("catches up when it is opened later", async () => {
    const first = await open();
    await agent.send([
      statistics("node-7", { cpu_load: 11 }),
      statistics("node-8", { cpu_load: 22 }),
      { id: "node-7", type: "ethereum_metrics", data: { type: "pending", body: { pending: 33 } } },
      statistics("node-7", { cpu_load: 12 }),
    ]);
    await value(first.page, "node-7", "cpu_load", "12").waitFor();
    await value(first.page, "node-7", "pending", "33").waitFor();

    const { page, faults } = await open();
    await value(page, "node-7", "cpu_load", "12").waitFor();
    await value(page, "node-8", "cpu_load", "22").waitFor();
    await value(page, "node-7", "pending", "33").waitFor();
    assert.deepEqual(faults, []);
  });

  it("recovers by itself when the server comes back", async () => {
    const { page } = await open();
    await agent.send(statistics("node-7", { cpu_load: 1 }));
    await value(page, "node-7", "cpu_load", "1").waitFor();
    await page.evaluate(() => {
      globalThis.notReloaded = true;
    });

    await server.kill();
    agent.close();
    await page.getByRole("status").filter({ hasText: "connection lost" }).waitFor();
    assert.equal(await value(page, "node-7", "cpu_load", "1").isVisible(), true);

    await server.run();
    agent = await Agent.connect(server.agents);
    await agent.send(statistics("node-7", { cpu_load: 2 }));
    await value(page, "node-7", "cpu_load", "2").waitFor({ timeout: RECOVERY_MS });
    await live(page);
    assert.equal(await page.evaluate(() => globalThis.notReloaded), true);
  });

  it("keeps up with many agents", async () => {
    const { page, faults } = await open();
    const AGENTS = 50;
    for (let round = 1; round <= 20; round += 1) {
      await agent.send(Array.from({ length: AGENTS }, (_, i) => statistics(`node-${i}`, { round, cpu_load: i })));
    }
    for (const i of [0, 7, AGENTS - 1]) await value(page, `node-${i}`, "round", "20").waitFor();
    const ids = await page.locator("tr.agent").allTextContents();
    assert.deepEqual(ids, Array.from({ length: AGENTS }, (_, i) => `node-${i}`));
    assert.deepEqual(faults, []);
  });

  it("fits a narrow screen", async () => {
    const { page } = await open();
    await page.setViewportSize({ width: 400, height: 800 });
    await agent.send(statistics("a".repeat(255), { ["n".repeat(300)]: "0".repeat(3000), cpu_load: 1 }));
    await value(page, `${"a".repeat(80)}…`, "cpu_load", "1").waitFor();
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 400);
  });

  it("has no other files and takes no other methods", async () => {
    const request = context.request;
    for (const name of ["", "index.html", "style.css", "icon.svg", "app.js", "fleet.js", "format.js", "view.js"]) {
      const response = await request.get(server.page + name);
      assert.equal(response.status(), 200, name);
      assert.equal(response.headers()["cache-control"], "no-cache", name);
    }
    assert.equal((await request.get(`${server.page}?x=/y`)).status(), 200);
    assert.equal((await request.get(`${server.page}other.js`)).status(), 404);
    assert.equal((await request.post(server.page)).status(), 405);
    const head = await request.head(`${server.page}app.js`);
    assert.equal(head.status(), 200);
    assert.equal(head.headers()["content-type"], "text/javascript; charset=utf-8");
    assert.equal((await head.body()).length, 0);
  });
});
