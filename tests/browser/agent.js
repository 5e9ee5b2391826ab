// An agent for tests: sends calls over a WebSocket and waits for their answers.

import { once } from "node:events";

import WebSocket from "ws";

export class Agent {
  #socket;

  static async connect(url) {
    const agent = new Agent();
    agent.#socket = new WebSocket(url);
    await once(agent.#socket, "open");
    return agent;
  }

  /** Sends messages, one or a list, in one frame; resolves when the server has accepted all of them. */
  async send(messages) {
    const calls = [messages].flat().map((message) => ({ call: "data", ...message }));
    const answered = once(this.#socket, "message");
    this.#socket.send(JSON.stringify(calls));
    const [answer] = await answered;
    const { result, accepted } = JSON.parse(answer);
    if (result !== "success" || accepted !== calls.length) throw new Error(`the server answered ${answer}`);
  }

  /** Ends the connection without a goodbye. */
  close() {
    this.#socket.terminate();
  }
}

/** A message as upstream's agents send it. */
export function statistics(id, body) {
  return { id, type: "system_metrics", data: { type: "statistics", body } };
}
