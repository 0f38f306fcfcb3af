// Objects or table rows that keep themselves current: a list, then a watch from its revision.

import { ApiError, get, open } from "./api.js";

const PAGE = 500;
/** A hidden tab lets go of its streams after this: behind `kubectl proxy` a browser has six for all tabs together. */
const HIDDEN = 20_000;
const SLOWEST = 15_000;
/** Nobody answered: that is mostly over soon, and asking costs nobody anything. */
const UNREACHED = 2_000;
const HELD_BACK = 1_500;

/** The lines of a streamed body. */
export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}

const identity = (object) => object?.metadata?.uid || `${object?.metadata?.namespace}/${object?.metadata?.name}`;

export class Live {
  /**
   * `path` of a collection; `name` narrows it to one object; `accept` asks for another form, such as a Table.
   * `changed` is called, not more often than the screen is drawn, after each change.
   */
  constructor({ path, name, accept, parameters }, changed) {
    Object.assign(this, { path, name, accept, parameters, changed });
    this.items = new Map();
    this.columns = null;
    this.state = "loading";
    this.error = null;
    this.revision = null;
    this.version = 0;
  }

  start() {
    this.onVisibility = () => {
      clearTimeout(this.hiding);
      if (document.hidden) this.hiding = setTimeout(() => this.halt(), HIDDEN);
      else if (!this.running) this.go();
    };
    document.addEventListener("visibilitychange", this.onVisibility);
    this.go();
    return this;
  }

  stop() {
    document.removeEventListener("visibilitychange", this.onVisibility);
    clearTimeout(this.hiding);
    this.halt();
    this.changed = () => {};
  }

  halt() {
    this.running?.abort();
    this.running = null;
  }

  go() {
    const running = new AbortController();
    this.running = running;
    this.run(running.signal).catch((error) => {
      if (!running.signal.aborted) this.show("failed", error);
    });
  }

  show(state, error = null) {
    this.state = state;
    this.error = error;
    this.version += 1;
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.changed(this);
    });
  }

  async run(signal) {
    let wait = 500;
    while (!signal.aborted) {
      try {
        if (this.revision === null) {
          await this.list(signal);
          this.show("live");
          // What is measured when it is asked for has no revision to watch from.
          if (this.revision === null) {
            await new Promise((done) => setTimeout(done, SLOWEST));
            continue;
          }
        }
        const began = Date.now();
        await this.watch(signal);
        // A watch that ends at once, time after time, must not become a storm.
        wait = Date.now() - began > 5000 ? 500 : wait * 2;
      } catch (error) {
        if (signal.aborted) return;
        if (error.code === 410) {
          this.revision = null;
          continue;
        }
        // One may list and not watch: then it stands still, and is not wrong.
        if (error.code === 403 && this.revision !== null) return this.show("still");
        if (error.code >= 400 && error.code < 500 && error.code !== 429) return this.show("failed", error);
        if (this.revision === null) this.show("failed", error);
        else this.show("reconnecting");
        wait = Math.min(wait * 2, error.code ? SLOWEST : UNREACHED);
      }
      wait = Math.min(wait, SLOWEST);
      await new Promise((done) => setTimeout(done, wait));
    }
  }

  async list(signal) {
    if (this.name) {
      const object = await get(`${this.path}/${encodeURIComponent(this.name)}`, { signal });
      this.items = new Map([[identity(object), object]]);
      this.revision = object.metadata.resourceVersion ?? null;
      return;
    }
    const items = new Map();
    let page;
    do {
      const parameters = { ...this.parameters, limit: PAGE, continue: page?.metadata?.continue };
      page = await get(this.path, { parameters, accept: this.accept, signal });
      if (page.columnDefinitions) this.columns = page.columnDefinitions;
      for (const item of page.rows || page.items || []) items.set(identity(item.object || item), item);
    } while (page.metadata?.continue);
    this.items = items;
    this.revision = page.metadata?.resourceVersion ?? null;
  }

  async watch(signal) {
    const parameters = { ...this.parameters, watch: 1, allowWatchBookmarks: true, resourceVersion: this.revision };
    if (this.name) parameters.fieldSelector = `metadata.name=${this.name}`;
    const live = () => this.state === "live" || signal.aborted || this.show("live");
    // Some proxies keep even the head of an answer back until something happens.
    const patience = setTimeout(live, HELD_BACK);
    let response;
    try {
      response = await open("GET", this.path, { parameters, accept: this.accept, signal });
    } finally {
      clearTimeout(patience);
    }
    live();
    for await (const line of lines(response)) {
      if (line) this.take(JSON.parse(line));
    }
  }

  take({ type, object }) {
    if (type === "ERROR") throw new ApiError(object.code || 500, object.message || "the watch ended", object);
    const rows = object.kind === "Table" ? object.rows || [] : [object];
    for (const row of rows) {
      const meta = (row.object || row).metadata || {};
      if (meta.resourceVersion) this.revision = meta.resourceVersion;
      if (type === "BOOKMARK") continue;
      const key = identity(row.object || row);
      if (type === "DELETED") this.items.delete(key);
      else this.items.set(key, row);
    }
    if (type !== "BOOKMARK") this.show("live");
  }
}
