// YAML as kubectl's users write it: 1.1 numbers and booleans, yet no timestamps or sexagesimal numbers out of plain text.

import { parseDocument, stringify } from "yaml";

const LEFT_OUT = new Set(["timestamp", "binary", "omap", "pairs", "set"].map((tag) => `tag:yaml.org,2002:${tag}`));
const OPTIONS = {
  version: "1.1",
  customTags: (tags) => tags.filter((tag) => !LEFT_OUT.has(tag.tag) && tag.format !== "TIME"),
};

export const toYaml = (value) => stringify(value, { ...OPTIONS, lineWidth: 0, aliasDuplicateObjects: false });

/** What a document holds. Throws what is wrong with it and in which line. */
export function fromYaml(text) {
  const document = parseDocument(text, { ...OPTIONS, prettyErrors: true });
  const [error] = document.errors;
  if (error) {
    const line = error.linePos?.[0]?.line;
    const problem = new Error(
      `line ${line ?? "?"}: ${error.message.split("\n")[0].replace(/ at line \d+, column \d+:?$/, "")}`,
    );
    problem.line = line;
    throw problem;
  }
  return document.toJS({ maxAliasCount: 100 });
}

/** The documents of a text and the lines at which they begin. Separators stand where kubectl looks for them. */
export function documents(text) {
  const found = [];
  let lines = [];
  let first = 1;
  const close = (next) => {
    if (lines.some((line) => line.trim() && !line.trim().startsWith("#")))
      found.push({ line: first, text: lines.join("\n") });
    lines = [];
    first = next;
  };
  text.split("\n").forEach((line, at) => {
    if (/^---(\s|$)/.test(line)) close(at + 2);
    else lines.push(line);
  });
  close(0);
  return found;
}
