import assert from "node:assert/strict";
import { describe, it } from "node:test";

import {
  BACK_OFF_FIRST_MS,
  BACK_OFF_MAX_MS,
  MAX_DEPTH,
  MAX_TEXT,
  MAX_TITLE,
  MAX_VALUES,
  backOff,
  flatten,
  formatAge,
  formatBytes,
  formatNumber,
  formatText,
  formatValue,
  sparkline,
} from "../format.js";

/** What a reader sees of a flattened body. */
const shown = (body) =>
  Object.fromEntries(flatten(body).values.map(({ name, value }) => [name, formatValue(name, value).text]));

describe("flatten", () => {
  it("names nested values with dots", () => {
    assert.deepEqual(shown({ cpu_load: 3.25, network: { eth0: { up: true } } }), {
      cpu_load: "3.25",
      "network.eth0.up": "true",
    });
  });

  it("shows short lists item by item", () => {
    assert.deepEqual(shown({ load: [1.5, 1, { a: 2 }] }), { "load[0]": "1.50", "load[1]": "1", "load[2].a": "2" });
  });

  it("shows a long list as its count and the numbers of its first item", () => {
    const history = Array.from({ length: 41 }, (_, i) => ({ hash: "0xaa", number: 1234 - i }));
    assert.deepEqual(shown({ history }), { history: "41 items", "history[0].number": "1,234" });
    assert.deepEqual(shown({ transactions: Array(5).fill("0xaf") }), { transactions: "5 items" });
    assert.deepEqual(shown({ rows: Array(5).fill([1]) }), { rows: "5 items" });
    assert.deepEqual(shown({ holes: Array(5).fill(null) }), { holes: "5 items" });
  });

  it("says what is empty", () => {
    assert.deepEqual(shown({ a: {}, b: [], c: "", d: null }), { a: "0 fields", b: "0 items", c: "empty", d: "null" });
    assert.deepEqual(shown({}), { value: "0 fields" });
  });

  it("takes a body that is no object", () => {
    assert.deepEqual(shown(5), { value: "5" });
    assert.deepEqual(shown(null), { value: "null" });
    assert.deepEqual(shown("text"), { value: "text" });
    assert.deepEqual(shown([7]), { "[0]": "7" });
  });

  it("keeps an agent's names away from those that objects have anyway", () => {
    assert.deepEqual(flatten(JSON.parse('{"__proto__":{"polluted":1},"constructor":2}')).values, [
      { name: "__proto__.polluted", value: 1 },
      { name: "constructor", value: 2 },
    ]);
    assert.equal({}.polluted, undefined);
  });

  it("counts what is over the limit", () => {
    const body = Object.fromEntries(Array.from({ length: MAX_VALUES + 3 }, (_, i) => [`v${i}`, i]));
    const { values, omitted } = flatten(body);
    assert.equal(values.length, MAX_VALUES);
    assert.equal(omitted, 3);
  });

  it("does not descend without end", () => {
    const deep = JSON.parse(`${'{"a":'.repeat(500)}1${"}".repeat(500)}`);
    assert.deepEqual(shown(deep), { [Array(MAX_DEPTH).fill("a").join(".")]: "1 field" });
    const lists = JSON.parse(`${"[".repeat(500)}${"]".repeat(500)}`);
    assert.deepEqual(shown(lists), { ["[0]".repeat(MAX_DEPTH)]: "1 item" });
  });
});

describe("values", () => {
  it("groups digits and keeps few decimals", () => {
    const cases = [
      [0, "0"],
      [8_000_000, "8,000,000"],
      [-12, "-12"],
      [3.256, "3.26"],
      [99.8, "99.80"],
      [0.61234, "0.6123"],
      [1234.56, "1,234.6"],
      [1e21, "1.000e+21"],
      [0.00001, "1.000e-5"],
      [Infinity, "Infinity"],
    ];
    for (const [number, text] of cases) assert.equal(formatNumber(number), text);
  });

  it("gives the exact number where the text is not", () => {
    assert.deepEqual(formatValue("x", 0.61234), { text: "0.6123", title: "0.61234", kind: "number" });
    assert.equal(formatValue("x", 12).title, "");
  });

  it("shows bytes where the name says bytes", () => {
    assert.equal(formatValue("network.received_bytes", 1536).text, "1.5 KiB");
    assert.equal(formatValue("bytes", 1536).text, "1.5 KiB");
    assert.equal(formatValue("network_sent_bytes_per_second", 1536).text, "1.5 KiB/s");
    assert.equal(formatValue("bytes_sent", 1536).text, "1,536");
    assert.equal(formatValue("kilobytes", 1536).text, "1,536");
    const cases = [
      [0, "0 B"],
      [1023, "1,023 B"],
      [-2048, "-2.0 KiB"],
      [1024 ** 3, "1.0 GiB"],
      [1024 ** 6, "1,024.0 PiB"],
    ];
    for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text);
  });

  it("cuts long text and keeps it for the tooltip", () => {
    const hash = `0x${"a".repeat(MAX_TEXT)}`;
    const { text, title } = formatText(hash);
    assert.equal(text, `${hash.slice(0, MAX_TEXT)}…`);
    assert.equal(title, hash);
    assert.equal(formatText("x".repeat(1_000_000)).title.length, MAX_TITLE + 1);
  });

  it("spells out characters that would hide or reorder text", () => {
    assert.equal(formatText("a\u202eb\nc\0\ufeff").text, "a\\u{202e}b\\u{a}c\\u{0}\\u{feff}");
    assert.equal(formatText("Zürich 東京 🚢").text, "Zürich 東京 🚢");
  });
});

describe("ages", () => {
  it("uses the largest whole unit", () => {
    const cases = [
      [-5000, "now"],
      [999, "now"],
      [1000, "1 s"],
      [59_999, "59 s"],
      [60_000, "1 min"],
      [3_600_000, "1 h"],
      [47 * 3_600_000, "47 h"],
      [48 * 3_600_000, "2 d"],
    ];
    for (const [ms, text] of cases) assert.equal(formatAge(ms), text);
  });
});

describe("back-off", () => {
  it("doubles up to a bound and stays within its spread", () => {
    assert.equal(backOff(0, 0), BACK_OFF_FIRST_MS / 2);
    assert.equal(backOff(0, 1), BACK_OFF_FIRST_MS);
    assert.equal(backOff(2, 1), BACK_OFF_FIRST_MS * 4);
    assert.equal(backOff(5000, 1), BACK_OFF_MAX_MS);
    assert.equal(backOff(5000, 0), BACK_OFF_MAX_MS / 2);
  });
});

describe("sparkline", () => {
  it("needs two numbers", () => {
    assert.deepEqual(sparkline([], 60, 60, 18), { line: "", area: "" });
    assert.deepEqual(sparkline([1], 60, 60, 18), { line: "", area: "" });
  });

  it("ends at the right edge and spans the height", () => {
    const { line, area } = sparkline([0, 10, 5], 5, 40, 18);
    assert.equal(line, "M20 18L30 0L40 9");
    assert.equal(area, "M20 18L30 0L40 9V18H20Z");
  });

  it("draws equal numbers in the middle", () => {
    assert.equal(sparkline([3, 3], 2, 40, 18).line, "M0 9L40 9");
  });

  it("copes with the largest numbers", () => {
    assert.equal(sparkline([-Number.MAX_VALUE, Number.MAX_VALUE], 2, 40, 18).line, "M0 18L40 0");
  });
});
