// Connects the page: updates from the socket go into the fleet at once, and to the document once per animation frame, so
// that hundreds of messages a second cost no more than what a screen can show.

import { backOff, formatNumber } from "./format.js";
import { Fleet } from "./fleet.js";
import { View } from "./view.js";

/** Time per frame for bringing rows up to date; what is left waits for the next frame, so that the page stays responsive. */
const FRAME_BUDGET_MS = 8;
/** A connection that held this long was a good one: the next pause is the shortest again. */
const GOOD_CONNECTION_MS = 5_000;
/** Ages and rates are counted in seconds. */
const TICK_MS = 1_000;

const view = new View(document);
/** Rows that the document does not show as they are, oldest change first. */
const changed = new Set();
const fleet = new Fleet((row) => {
  changed.delete(row);
  view.forget(row);
});
let frame = 0;
let updates = 0;

function receive(text) {
  updates += 1;
  const row = fleet.take(text);
  if (row === undefined) return;
  changed.add(row);
  if (frame === 0) frame = requestAnimationFrame(render);
}

function render() {
  frame = 0;
  const end = performance.now() + FRAME_BUDGET_MS;
  const now = Date.now();
  for (const row of changed) {
    changed.delete(row);
    view.show(row, now);
    if (performance.now() >= end) break;
  }
  view.note(fleet.forgotten);
  if (changed.size > 0) frame = requestAnimationFrame(render);
}

let attempt = 0;

function connect() {
  const url = new URL("live", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = "";
  url.hash = "";
  const socket = new WebSocket(url);
  let opened = Infinity;
  socket.onopen = () => {
    opened = performance.now();
    view.connection("live", "live");
    view.listening();
  };
  socket.onmessage = (event) => receive(event.data);
  // An error is always followed by a close.
  socket.onclose = () => {
    if (performance.now() - opened >= GOOD_CONNECTION_MS) attempt = 0;
    wait(backOff(attempt, Math.random()));
    attempt += 1;
  };
}

/** Connects after a pause, or at once when the browser is back on the network. */
function wait(pause) {
  view.connection("lost", "connection lost, trying again");
  const again = () => {
    clearTimeout(timer);
    removeEventListener("online", again);
    connect();
  };
  const timer = setTimeout(again, pause);
  addEventListener("online", again);
}

setInterval(() => {
  view.tick(Date.now());
  view.summary(fleet.agents.size, formatNumber(updates / (TICK_MS / 1000)));
  updates = 0;
}, TICK_MS);

connect();
