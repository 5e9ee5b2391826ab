import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { Fleet, MAX_AGENTS, MAX_POINTS, MAX_ROWS_PER_AGENT } from "../fleet.js";

let offset = 0;

/** An update as the component publishes it. */
function update(fields) {
  offset += 1;
  const usual = { agent: "a", type: "t", kind: "k", at: 1_700_000_000_000 + offset, offset, body: { n: offset } };
  return JSON.stringify({ ...usual, ...fields });
}

function fleet() {
  const forgotten = [];
  return { fleet: new Fleet((row) => forgotten.push(row)), forgotten };
}

describe("the fleet", () => {
  it("keeps one row per agent, type and kind", () => {
    const { fleet: known } = fleet();
    const first = known.take(update({}));
    assert.equal(known.take(update({})), first);
    assert.notEqual(known.take(update({ kind: "other" })), first);
    assert.notEqual(known.take(update({ type: "other" })), first);
    assert.notEqual(known.take(update({ agent: "b" })), first);
    assert.equal(known.agents.size, 2);
  });

  it("remembers the last numbers of each value", () => {
    const { fleet: known } = fleet();
    let row;
    for (let n = 0; n < MAX_POINTS + 5; n += 1) row = known.take(update({ body: { n, text: "x" } }));
    assert.equal(row.series.get("n").length, MAX_POINTS);
    assert.equal(row.series.get("n").at(-1), MAX_POINTS + 4);
    assert.deepEqual([...row.series.keys()], ["n"]);
  });

  it("forgets the numbers of a value that went away", () => {
    const { fleet: known } = fleet();
    known.take(update({ body: { a: 1 } }));
    known.take(update({ body: { b: 1 } }));
    assert.deepEqual([...known.take(update({ body: { a: 2 } })).series.get("a")], [2]);
  });

  it("takes the same message once, as after connecting again", () => {
    const { fleet: known } = fleet();
    const same = update({ body: { n: 1 } });
    const row = known.take(same);
    assert.equal(known.take(same), undefined);
    assert.equal(row.series.get("n").length, 1);
  });

  it("keeps infinite numbers off the line", () => {
    const { fleet: known } = fleet();
    const row = known.take('{"agent":"a","type":"t","kind":"k","at":1,"offset":1,"body":{"n":1e999}}');
    assert.equal(row.series.size, 0);
    assert.equal(row.values[0].value, Infinity);
  });

  it("says how large a body was that was left out", () => {
    const { fleet: known } = fleet();
    const row = known.take(update({ body: null, omitted_bytes: 700_000 }));
    assert.equal(row.omittedBytes, 700_000);
    assert.deepEqual(row.values, []);
  });

  it("ignores what is no update", () => {
    const { fleet: known } = fleet();
    for (const text of ["", "{", "null", "5", "[]", "{}", '{"agent":1}', update({ at: "soon" }), update({ kind: null })]) {
      assert.equal(known.take(text), undefined, text);
    }
    assert.equal(known.agents.size, 0);
  });

  it("drops the agent not heard of for longest", () => {
    const { fleet: known, forgotten } = fleet();
    for (let n = 0; n < MAX_AGENTS; n += 1) known.take(update({ agent: `agent-${n}` }));
    known.take(update({ agent: "agent-0" }));
    assert.equal(known.forgotten, 0);
    known.take(update({ agent: "one more" }));
    assert.equal(known.agents.size, MAX_AGENTS);
    assert.equal(known.forgotten, 1);
    assert.deepEqual(forgotten.map((row) => row.agent), ["agent-1"]);
  });

  it("drops the row of an agent not heard of for longest", () => {
    const { fleet: known, forgotten } = fleet();
    for (let n = 0; n <= MAX_ROWS_PER_AGENT; n += 1) known.take(update({ kind: `kind-${n}` }));
    assert.deepEqual(forgotten.map((row) => row.kind), ["kind-0"]);
    assert.equal(known.agents.get("a").size, MAX_ROWS_PER_AGENT);
  });
});
