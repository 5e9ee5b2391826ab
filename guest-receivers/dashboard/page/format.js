// Pure functions that turn what agents send into what the page shows, and the pauses between attempts to connect. No
// document and no clock in here, so that Node can test it.

/** Values of one message that are shown; a table row with more is not read anyway. */
export const MAX_VALUES = 24;
/** Objects inside objects that are looked into; what is deeper is shown as a count. */
export const MAX_DEPTH = 6;
/** Lists up to this long are shown item by item (load averages have three); longer ones as a count. */
export const MAX_SHORT_LIST = 4;
/** Numbers of the first item that stand for a longer list of objects. */
export const MAX_FIRST_ITEM_VALUES = 3;
/** Characters of a text that are shown; a cell has room for about half of them. */
export const MAX_TEXT = 80;
/** Characters of a text that are kept for its tooltip: a block's extra data fits, a megabyte does not. */
export const MAX_TITLE = 1000;

/** The first pause before connecting again, in milliseconds. */
export const BACK_OFF_FIRST_MS = 500;
/** The longest pause: a server that comes back is found within it. */
export const BACK_OFF_MAX_MS = 10_000;

/**
 * Flattens a body into named values: `{a: {b: 1}}` gives `a.b`. Gives at most MAX_VALUES, and how many it left out of the
 * levels that it looked at.
 */
export function flatten(body) {
  const values = [];
  let omitted = 0;

  const add = (name, value) => {
    if (values.length < MAX_VALUES) values.push({ name: name || "value", value });
    else omitted += 1;
  };
  const visit = (name, value, depth) => {
    if (values.length >= MAX_VALUES || value === null || typeof value !== "object") {
      add(name, value);
    } else if (Array.isArray(value)) {
      visitList(name, value, depth);
    } else {
      const keys = Object.keys(value);
      if (keys.length === 0 || depth >= MAX_DEPTH) add(name, count(keys.length, "field"));
      else for (const key of keys) visit(name ? `${name}.${key}` : key, value[key], depth + 1);
    }
  };
  const visitList = (name, list, depth) => {
    const short = list.length > 0 && list.length <= MAX_SHORT_LIST;
    if (short && depth < MAX_DEPTH) {
      list.forEach((item, index) => visit(`${name}[${index}]`, item, depth + 1));
      return;
    }
    add(name, count(list.length, "item"));
    // Agents put the newest first (the last 41 blocks), so its numbers say the most.
    const [first] = list;
    if (first === null || typeof first !== "object" || Array.isArray(first)) return;
    const numbers = Object.entries(first).filter(([, value]) => typeof value === "number");
    for (const [key, value] of numbers.slice(0, MAX_FIRST_ITEM_VALUES)) add(`${name}[0].${key}`, value);
  };

  visit("", body, 0);
  return { values, omitted };
}

/** A count with its noun, marked as such so that an agent's text can't be taken for it. */
function count(number, noun) {
  return new Count(`${formatNumber(number)} ${noun}${number === 1 ? "" : "s"}`);
}

/** Stands in flattened values for a list or an object that is not shown. */
export class Count {
  constructor(text) {
    this.text = text;
  }
}

/** Text for a value, and the whole of it where the text is less. */
export function formatValue(name, value) {
  if (typeof value === "number") {
    const text = formatNamed(name, value);
    return { text, title: text === String(value) ? "" : String(value), kind: "number" };
  }
  if (typeof value === "string") {
    if (value === "") return { text: "empty", title: "", kind: "none" };
    return { ...formatText(value), kind: "text" };
  }
  if (value instanceof Count) return { text: value.text, title: "", kind: "none" };
  if (value === null) return { text: "null", title: "", kind: "none" };
  return { text: String(value), title: "", kind: "text" };
}

/** Makes a text of an agent fit: long text is cut, characters that would be invisible or reorder the line are spelled out. */
export function formatText(text) {
  const shown = visible(text.slice(0, MAX_TEXT));
  if (text.length <= MAX_TEXT) return { text: shown, title: shown };
  const title = text.length <= MAX_TITLE ? text : `${text.slice(0, MAX_TITLE)}…`;
  return { text: `${shown}…`, title: visible(title) };
}

// Control characters, line separators, and marks that change the direction of the text around them.
const INVISIBLE = /[\p{Cc}\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu;

function visible(text) {
  return text.replace(INVISIBLE, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** A number with grouped digits and few decimals. */
export function formatNumber(number) {
  const size = Math.abs(number);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return number.toExponential(3);
  if (Number.isInteger(number)) return decimals(number, 0);
  return decimals(number, size >= 1000 ? 1 : size >= 1 ? 2 : 4);
}

const BYTE_UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/** A number of bytes in the largest unit that keeps it above one. */
export function formatBytes(bytes) {
  if (Math.abs(bytes) < 1024) return `${formatNumber(bytes)} B`;
  let amount = bytes;
  let unit = "";
  for (const next of BYTE_UNITS) {
    if (Math.abs(amount) < 1024) break;
    amount /= 1024;
    unit = next;
  }
  return `${decimals(amount, 1)} ${unit}`;
}

/** A number with the unit that its name ends in. Only bytes: a guess from other words would put a wrong unit on a figure. */
function formatNamed(name, number) {
  const [, unit] = /(?:^|[._])(bytes|bytes_per_second)$/.exec(name) ?? [];
  if (unit === "bytes") return formatBytes(number);
  if (unit === "bytes_per_second") return `${formatBytes(number)}/s`;
  return formatNumber(number);
}

function decimals(number, digits) {
  return formats[digits].format(number);
}

// Making one costs more than using it, and they are used for every number of every message.
const formats = [0, 1, 2, 3, 4].map(
  (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: Math.min(digits, 2), maximumFractionDigits: digits }),
);

/** An age in its largest whole unit. Clocks of browser and server differ a little, so the future counts as now. */
export function formatAge(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${formatNumber(Math.floor(seconds / 86_400))} d`;
}

/**
 * The pause before attempt number `attempt` (from 0) in milliseconds: doubled each time up to a bound, and spread by
 * `random` (0 to 1) over its upper half, so that the browsers of a restarted server do not come back at once.
 */
export function backOff(attempt, random) {
  const pause = Math.min(BACK_OFF_FIRST_MS * 2 ** attempt, BACK_OFF_MAX_MS);
  return Math.round(pause * (0.5 + random / 2));
}

/**
 * SVG paths of a sparkline for numbers from old to new, in a box of `width` by `height`: the line, and the area below it.
 * The newest is at the right edge; with fewer than `room` numbers the line starts further right. Empty for fewer than two.
 */
export function sparkline(numbers, room, width, height) {
  if (numbers.length < 2) return { line: "", area: "" };
  const low = Math.min(...numbers);
  const high = Math.max(...numbers);
  const step = width / (room - 1);
  const first = width - step * (numbers.length - 1);
  const points = numbers.map((number, index) => {
    // Halved first, because the difference of two huge numbers is infinite.
    const share = high > low ? (number / 2 - low / 2) / (high / 2 - low / 2) : 0.5;
    return `${round(first + step * index)} ${round(height - share * height)}`;
  });
  const line = `M${points.join("L")}`;
  return { line, area: `${line}V${height}H${round(first)}Z` };
}

function round(number) {
  return Math.round(number * 10) / 10;
}
