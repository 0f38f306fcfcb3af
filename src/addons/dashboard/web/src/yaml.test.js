import assert from "node:assert/strict";
import { test } from "node:test";
import { documents, fromYaml, toYaml } from "./yaml.js";

test("numbers and booleans as kubectl's users write them", () => {
  assert.deepEqual(fromYaml("mode: 0644\non: yes\nsize: 1Gi\n"), { mode: 420, true: true, size: "1Gi" });
  assert.deepEqual(fromYaml("at: 2026-11-22T10:00:00Z\nports: 22:22\nkey: !!str 1\n"), {
    at: "2026-11-22T10:00:00Z",
    ports: "22:22",
    key: "1",
  });
});

test("what is written reads the same", () => {
  const value = {
    a: ["yes", "0644", "1e3", "12:30", "null", "", "- x", "# y", "a: b", "2026-11-22"],
    b: { c: null, d: "two\nlines\n" },
    e: 1.5,
  };
  assert.deepEqual(fromYaml(toYaml(value)), value);
});

test("errors say the line", () => {
  assert.throws(
    () => fromYaml("a: 1\nb: [\n"),
    (error) => error.line >= 2 && /^line \d+: /.test(error.message),
  );
  assert.throws(() => fromYaml("a: 1\na: 2\n"), /unique/);
});

test("documents are split where kubectl splits them", () => {
  const text = "# only a comment\n---\na: 1\ntext: |\n  --- not here\n---\n\n--- # two\nb: 2\n";
  assert.deepEqual(
    documents(text).map(({ line, text }) => [line, fromYaml(text)]),
    [
      [3, { a: 1, text: "--- not here\n" }],
      [9, { b: 2 }],
    ],
  );
});
