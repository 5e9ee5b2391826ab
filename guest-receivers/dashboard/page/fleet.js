// What the page knows: agents, their rows (one per data type and kind), values and recent numbers. All of it bounded,
// because agents choose their ids, kinds and fields. No document in here, so that Node can test it.

import { flatten } from "./format.js";

/** Agents on the page; the one not heard of for longest makes room. More rows than this help nobody and slow the browser. */
export const MAX_AGENTS = 200;
/** Rows of one agent; an Ethereum node has six. */
export const MAX_ROWS_PER_AGENT = 16;
/** Numbers of a sparkline: five minutes of an agent that reports every five seconds. */
export const MAX_POINTS = 60;
/** After this long without a message a row is stale, in milliseconds. Agents report every few seconds. */
export const STALE_MS = 30_000;

/** One row: the latest message of an agent, data type and kind. */
class Row {
  constructor(agent, type, kind) {
    this.agent = agent;
    this.type = type;
    this.kind = kind;
    this.at = 0;
    this.offset = -1;
    this.values = [];
    this.omitted = 0;
    this.omittedBytes = undefined;
    /** Name of a numeric value to its last numbers, old to new. */
    this.series = new Map();
  }

  /** Takes the update; false if it is the one that is shown already, as after connecting again. */
  take(update) {
    if (update.offset === this.offset && update.at === this.at) return false;
    this.at = update.at;
    this.offset = update.offset;
    this.omittedBytes = update.omitted_bytes;
    const { values, omitted } = update.omitted_bytes === undefined ? flatten(update.body) : { values: [], omitted: 0 };
    this.values = values;
    this.omitted = omitted;
    const series = new Map();
    for (const { name, value } of values) {
      // JSON's 1e999 is read as infinite, which is nowhere on a line.
      if (!Number.isFinite(value)) continue;
      const points = this.series.get(name) ?? [];
      points.push(value);
      if (points.length > MAX_POINTS) points.shift();
      series.set(name, points);
    }
    this.series = series;
    return true;
  }
}

/** All agents. `onForget` is told of each row that is dropped to make room, and of an agent when all of it is. */
export class Fleet {
  constructor(onForget) {
    // A map keeps the order of insertion: what is heard of moves to the end, what makes room is at the start.
    this.agents = new Map();
    this.forgotten = 0;
    this.onForget = onForget;
  }

  /** Takes the text of one live update. Gives its row, or undefined where nothing new is to be shown. */
  take(text) {
    const update = parse(text);
    if (update === undefined) return undefined;
    const rows = touch(this.agents, update.agent, () => new Map());
    const row = touch(rows, JSON.stringify([update.type, update.kind]), () => new Row(update.agent, update.type, update.kind));
    const isNew = row.take(update);
    for (const old of overflow(rows, MAX_ROWS_PER_AGENT)) this.onForget(old);
    for (const rowsOfOld of overflow(this.agents, MAX_AGENTS)) {
      this.forgotten += 1;
      for (const old of rowsOfOld.values()) this.onForget(old);
    }
    return isNew ? row : undefined;
  }
}

/** Reads an update; undefined for anything that is not one, as a newer component's may be to an old page. */
function parse(text) {
  let update;
  try {
    update = JSON.parse(text);
  } catch {
    return undefined;
  }
  const known =
    update !== null &&
    typeof update === "object" &&
    [update.agent, update.type, update.kind].every((part) => typeof part === "string") &&
    [update.at, update.offset].every(Number.isFinite);
  return known ? update : undefined;
}

/** The entry of a key, made if it is missing, moved to the end of the map. */
function touch(map, key, make) {
  const entry = map.get(key) ?? make();
  map.delete(key);
  map.set(key, entry);
  return entry;
}

/** Takes the oldest entries out of a map until it is no larger than `limit`. */
function* overflow(map, limit) {
  while (map.size > limit) {
    const [key, entry] = map.entries().next().value;
    map.delete(key);
    yield entry;
  }
}
