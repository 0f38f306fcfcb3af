import assert from "node:assert/strict";
import { test } from "node:test";
import { age, cleanToken, missingRight, mood, quantity } from "./format.js";

test("ages as kubectl prints them", () => {
  const at = (seconds) => age(new Date(0), seconds * 1000);
  assert.deepEqual([0, 119, 125, 660, 3 * 3600 + 60, 50 * 3600, 10 * 86400, 800 * 86400].map(at), [
    "0s",
    "119s",
    "2m5s",
    "11m",
    "3h1m",
    "2d2h",
    "10d",
    "2y70d",
  ]);
});

test("quantities", () => {
  assert.deepEqual(["250m", "2", "1Gi", "1.5k", "1e3", undefined, "x"].map(quantity), [
    0.25,
    2,
    2 ** 30,
    1500,
    1000,
    0,
    0,
  ]);
});

test("moods of status words", () => {
  assert.deepEqual(["Running", "CrashLoopBackOff", "Init:0/2", "ErrImagePull", "NotReady", "custom"].map(mood), [
    "good",
    "bad",
    "waiting",
    "bad",
    "bad",
    "",
  ]);
});

test("tokens are found in what is pasted", () => {
  for (const pasted of ["abc.def", " token:      abc.def\n", "Bearer abc.def", "abc.\n  def"])
    assert.equal(cleanToken(pasted), "abc.def");
});

test("a refusal's missing right", () => {
  const message =
    'pods is forbidden: User "system:serviceaccount:a:b" cannot list resource "pods" in API group "" in the namespace "c"';
  assert.deepEqual(missingRight(message), {
    user: "system:serviceaccount:a:b",
    verb: "list",
    resource: "pods",
    group: "",
    namespace: "c",
  });
  assert.equal(missingRight("requests come from the page only"), null);
});
