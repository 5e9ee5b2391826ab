// Shows the fleet in the document. Everything that agents send goes in as text: there is no markup in here, and must never be.

import { formatAge, formatText, formatValue, sparkline } from "./format.js";
import { MAX_AGENTS, MAX_POINTS, STALE_MS } from "./fleet.js";

const SPARK_WIDTH = 60;
const SPARK_HEIGHT = 18;
/** Keeps the line's ends inside the drawing. */
const SPARK_MARGIN = 1.5;

/** Children of the table before the first group (caption and head), and of a group before its first row. */
const TABLE_HEAD = 2;
const GROUP_HEAD = 1;

// Agents are sorted as people count: node-2 before node-10. Ids that a reader would call equal are still apart.
const collator = new Intl.Collator("en", { numeric: true });
const order = (a, b) => collator.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0);

/** The document's part of the page. */
export class View {
  constructor(document) {
    this.table = document.getElementById("agents");
    this.empty = document.getElementById("empty");
    this.status = document.getElementById("connection");
    this.summaryText = document.getElementById("summary");
    this.forgottenText = document.getElementById("forgotten");
    /** Agent id to its group, and row to what shows it. */
    this.groups = new Map();
    this.rows = new Map();
  }

  /** Shows a row as it is now. */
  show(row, now) {
    let shown = this.rows.get(row);
    if (shown === undefined) {
      shown = new RowView(row);
      this.rows.set(row, shown);
      this.group(row.agent).add(shown);
      this.table.hidden = false;
      this.empty.hidden = true;
    }
    shown.update();
    shown.tick(now);
    this.groups.get(row.agent).tick();
  }

  /** Takes a row out, and its agent's group with its last row. */
  forget(row) {
    const shown = this.rows.get(row);
    if (shown === undefined) return;
    this.rows.delete(row);
    const group = this.groups.get(row.agent);
    if (group.remove(shown)) this.groups.delete(row.agent);
  }

  /** Brings ages up to date. */
  tick(now) {
    for (const shown of this.rows.values()) shown.tick(now);
    for (const group of this.groups.values()) group.tick();
  }

  /** Says how the connection is. */
  connection(state, text) {
    this.status.dataset.state = state;
    setText(this.status, text);
  }

  /** Tells what to do while nothing has come over an open connection. */
  listening() {
    this.empty.hidden = this.rows.size > 0;
  }

  summary(agents, rate) {
    setText(this.summaryText, agents === 0 ? "" : `${agents} agent${agents === 1 ? "" : "s"} · ${rate} updates/s`);
  }

  /** Says that agents had to make room. */
  note(forgotten) {
    this.forgottenText.hidden = forgotten === 0;
    if (forgotten > 0) setText(this.forgottenText, `Only the ${MAX_AGENTS} agents heard of last are shown.`);
  }

  group(agent) {
    let group = this.groups.get(agent);
    if (group === undefined) {
      group = new GroupView(agent);
      this.groups.set(agent, group);
      insertSorted(this.table, group.element, agent, TABLE_HEAD);
    }
    return group;
  }
}

/** An agent: a heading and its rows. */
class GroupView {
  constructor(agent) {
    const heading = element("th", { scope: "rowgroup", colSpan: 3 });
    setLabel(heading.appendChild(element("bdi")), agent);
    this.element = element("tbody");
    this.element.append(element("tr", { className: "agent" }, heading));
    this.rows = new Set();
  }

  add(shown) {
    this.rows.add(shown);
    insertSorted(this.element, shown.element, `${shown.row.type} ${shown.row.kind}`, GROUP_HEAD);
  }

  /** True when that was the last row; the group is then out of the document. */
  remove(shown) {
    this.rows.delete(shown);
    shown.element.remove();
    if (this.rows.size > 0) return false;
    this.element.remove();
    return true;
  }

  tick() {
    let stale = true;
    for (const shown of this.rows) stale &&= shown.stale;
    setClass(this.element, "stale", stale);
  }
}

/** One row of the table. */
class RowView {
  constructor(row) {
    this.row = row;
    this.stale = false;
    this.values = [];
    const kind = element("bdi", { className: "kind" });
    const type = element("bdi", { className: "type" });
    setLabel(kind, row.kind);
    setLabel(type, row.type);
    this.list = element("dl");
    this.more = element("p", { className: "more", hidden: true });
    this.age = element("td", { className: "age" });
    const heading = element("th", { scope: "row" }, kind, type);
    this.element = element("tr", {}, heading, element("td", {}, this.list, this.more), this.age);
  }

  /** Brings the values up to date; what has the same names as before keeps its elements. */
  update() {
    const { values, series, omitted, omittedBytes, at } = this.row;
    const same = values.length === this.values.length && values.every(({ name }, i) => name === this.values[i].name);
    if (!same) {
      this.values = values.map(({ name }) => new ValueView(name));
      this.list.replaceChildren(...this.values.map((shown) => shown.element));
    }
    values.forEach(({ name, value }, i) => this.values[i].update(value, series.get(name)));

    let more = "";
    if (omitted > 0) more = `and ${omitted} more`;
    if (omittedBytes !== undefined) more = `a message of ${formatValue("bytes", omittedBytes).text}, not shown`;
    this.more.hidden = more === "";
    setText(this.more, more);
    this.age.title = new Date(at).toLocaleString();
  }

  tick(now) {
    const age = Math.max(0, now - this.row.at);
    setText(this.age, formatAge(age));
    this.stale = age > STALE_MS;
    setClass(this.element, "stale", this.stale);
  }
}

/** One value: its name, its text, and a sparkline where it is a number. */
class ValueView {
  constructor(name) {
    this.name = name;
    const term = element("dt");
    setLabel(term.appendChild(element("bdi")), name);
    this.text = element("bdi");
    this.description = element("dd", {}, this.text);
    this.element = element("div", {}, term, this.description);
    this.spark = undefined;
  }

  update(value, points) {
    const { text, title, kind } = formatValue(this.name, value);
    setText(this.text, text);
    if (this.text.title !== title) this.text.title = title;
    if (this.description.className !== kind) this.description.className = kind;
    if (points === undefined || points.length < 2) {
      this.spark?.element.remove();
      this.spark = undefined;
      return;
    }
    if (this.spark === undefined) {
      this.spark = new Spark();
      this.description.append(this.spark.element);
    }
    this.spark.update(points);
  }
}

/** A sparkline. Says nothing that the number beside it does not, so readers of the page aloud skip it. */
class Spark {
  constructor() {
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    const width = SPARK_WIDTH + 2 * SPARK_MARGIN;
    const height = SPARK_HEIGHT + 2 * SPARK_MARGIN;
    const viewBox = `${-SPARK_MARGIN} ${-SPARK_MARGIN} ${width} ${height}`;
    this.element = svg("svg", { viewBox, width, height, "aria-hidden": "true" });
    this.element.append(this.area, this.line);
  }

  update(points) {
    const { line, area } = sparkline(points, MAX_POINTS, SPARK_WIDTH, SPARK_HEIGHT);
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
  }
}

/** Inserts a child where its key belongs among its siblings; the first `skip` children are no siblings. */
function insertSorted(parent, child, key, skip) {
  child.sortKey = key;
  let low = skip;
  let high = parent.children.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order(parent.children[middle].sortKey, key) < 0) low = middle + 1;
    else high = middle;
  }
  parent.insertBefore(child, parent.children[low] ?? null);
}

/** Shows a text that an agent chose. */
function setLabel(target, label) {
  const { text, title } = formatText(label);
  target.textContent = text;
  target.title = title;
}

/** Writing what is there already would still cost a layout. */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function setClass(target, name, on) {
  if (target.classList.contains(name) !== on) target.classList.toggle(name, on);
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
