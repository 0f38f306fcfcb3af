import assert from "node:assert/strict";
import { test } from "node:test";
import { covers, diff, rebase } from "./change.js";

test("what a server added does not hide what was sent", () => {
  const sent = { metadata: { name: "a" }, spec: { list: [{ a: 1 }], text: "x" } };
  const added = { metadata: { name: "a", uid: "u" }, spec: { list: [{ a: 1, b: 2 }], text: "x" }, status: {} };
  assert.equal(covers(added, sent), true);
  assert.equal(covers({ ...added, spec: { ...added.spec, list: [{ a: 1 }, {}] } }, sent), false);
  assert.equal(covers({ ...added, spec: { ...added.spec, text: "y" } }, sent), false);
  assert.equal(covers({}, sent), false);
});

test("a change is shown with what stands around it", () => {
  const before = "a\nb\nc\nd\ne\nf\ng\nh";
  const lines = diff(before, before.replace("e", "E\nE2"), 1);
  assert.deepEqual(lines, [
    ["cut", "⋯"],
    ["same", "d"],
    ["gone", "e"],
    ["new", "E"],
    ["new", "E2"],
    ["same", "f"],
    ["cut", "⋯"],
  ]);
  assert.deepEqual(
    diff("a", "a").filter(([kind]) => kind !== "cut"),
    [],
  );
});

test("own changes go onto another version, and nothing else does", () => {
  const base = { metadata: { resourceVersion: "1", labels: { a: "1", b: "1" } }, spec: { replicas: 1, image: "x" } };
  const mine = {
    metadata: { resourceVersion: "1", labels: { a: "2" } },
    spec: { replicas: 3, image: "x", paused: true },
  };
  const theirs = {
    metadata: { resourceVersion: "7", labels: { a: "1", b: "1", c: "1" } },
    spec: { replicas: 2, image: "y" },
  };
  assert.deepEqual(rebase(base, mine, theirs), {
    metadata: { resourceVersion: "7", labels: { a: "2", c: "1" } },
    spec: { replicas: 3, image: "y", paused: true },
  });
});

test("what they removed and I left alone stays away", () => {
  assert.deepEqual(rebase({ a: 1, b: 1 }, { a: 1, b: 2 }, { b: 1 }), { b: 2 });
});
