import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.sessionStorage = { getItem: () => "", setItem() {}, removeItem() {} };
const { create, replace } = await import("./api.js");

const NOW = "2026-01-02T03:04:05Z";

function answer(code, body) {
  return new Response(JSON.stringify(body), { status: code, headers: { Date: new Date(NOW).toUTCString() } });
}

/** Gives one answer after the other; those that are missing are cut off on their way. Answers what was asked. */
function serve(...answers) {
  const asked = [];
  globalThis.fetch = async (url, { method }) => {
    asked.push(`${method} ${url.split("?")[0]}`);
    const next = answers.shift();
    if (!next) throw new TypeError("network error");
    return next;
  };
  return asked;
}

const status = (code, reason) => answer(code, { kind: "Status", code, reason, message: reason });
const named = { metadata: { name: "a" } };
const made = (creationTimestamp) => ({ metadata: { name: "a", creationTimestamp } });

test("a create that was cut off is done again", async () => {
  const asked = serve(null, answer(201, made(NOW)));
  assert.equal((await create("maps", named)).object.metadata.name, "a");
  assert.deepEqual(asked, ["POST maps", "POST maps"]);
});

test("a create that arrived before it was cut off is found", async () => {
  const asked = serve(null, status(409, "AlreadyExists"), answer(200, made(NOW)));
  assert.equal((await create("maps", named)).object.metadata.name, "a");
  assert.deepEqual(asked, ["POST maps", "POST maps", "GET maps/a"]);
});

test("what was there before is refused", async () => {
  serve(status(409, "AlreadyExists"));
  await assert.rejects(create("maps", named), { reason: "AlreadyExists" });
  serve(null, status(409, "AlreadyExists"), answer(200, made("2026-01-02T03:00:00Z")));
  await assert.rejects(create("maps", named), { reason: "AlreadyExists" });
});

test("what the server names is created once at most", async () => {
  const asked = serve(null);
  await assert.rejects(create("maps", { metadata: { generateName: "a-" } }), { code: 0 });
  assert.deepEqual(asked, ["POST maps"]);
});

test("a replacement that arrived before it was cut off is no conflict", async () => {
  const sent = { metadata: { name: "a", resourceVersion: "1" }, data: { b: "c" } };
  const asked = serve(null, status(409, "Conflict"), answer(200, { ...sent, metadata: { name: "a", resourceVersion: "2" } }));
  assert.equal((await replace("maps/a", sent)).object.metadata.resourceVersion, "2");
  assert.deepEqual(asked, ["PUT maps/a", "PUT maps/a", "GET maps/a"]);
  serve(null, status(409, "Conflict"), answer(200, { ...sent, data: { b: "another's" } }));
  await assert.rejects(replace("maps/a", sent), { reason: "Conflict" });
});
