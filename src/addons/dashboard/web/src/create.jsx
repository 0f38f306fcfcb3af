// New objects from YAML, several documents at once.

import { useEffect, useState } from "preact/hooks";
import { create, kindFor, pathOf } from "./api.js";
import { Editor } from "./editor.jsx";
import { plural } from "./format.js";
import { objectUrl } from "./router.js";
import { documents, fromYaml } from "./yaml.js";
import { Action, Problem } from "./ui.jsx";

const EXAMPLE = `apiVersion: v1
kind: ConfigMap
metadata:
  name: example
data:
  greeting: hello
`;

/** Objects of a text. A List stands for its items. */
function objectsOf(text) {
  const found = [];
  for (const { line, text: document } of documents(text)) {
    let object;
    try {
      object = fromYaml(document);
    } catch (problem) {
      problem.line = (problem.line ?? 1) + line - 1;
      problem.message = problem.message.replace(/^line [0-9?]+/, `line ${problem.line}`);
      throw problem;
    }
    for (const one of object?.kind === "List" && object.apiVersion === "v1" ? object.items || [] : [object]) {
      if (!one?.apiVersion || !one?.kind) {
        const problem = new Error(`line ${line}: a document must say its apiVersion and kind`);
        problem.line = line;
        throw problem;
      }
      found.push(one);
    }
  }
  return found;
}

export function Create({ namespace }) {
  const [text, setText] = useState(EXAMPLE);
  const [results, setResults] = useState([]);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState("");
  const target = namespace || "default";
  useEffect(() => {
    document.title = "Create – mini";
  }, []);
  const send = async (dryRun) => {
    setResults([]);
    setProblem(null);
    let objects;
    try {
      objects = objectsOf(text);
      if (objects.length === 0) throw new Error("There is no document.");
    } catch (error) {
      return setProblem(error);
    }
    setBusy(dryRun ? "Checking…" : "Creating…");
    const done = [];
    for (const object of objects) {
      const result = { object, dryRun };
      try {
        const kind = await kindFor(object.apiVersion, object.kind);
        if (!kind) throw new Error(`the API serves no ${object.kind} in ${object.apiVersion}`);
        const version = object.apiVersion.split("/").pop();
        const path = pathOf({ ...kind, version }, object.metadata?.namespace || target);
        const { object: made, warnings } = await create(path, object, dryRun);
        Object.assign(result, { kind, made, warnings });
      } catch (error) {
        result.error = error;
      }
      done.push(result);
      setResults([...done]);
    }
    setBusy("");
  };
  const read = async (event) => {
    const texts = await Promise.all([...event.target.files].map((file) => file.text()));
    setText(texts.join("\n---\n"));
    event.target.value = "";
  };
  const failed = results.filter((result) => result.error).length;
  return (
    <>
      <div class="title">
        <h1>Create</h1>
        <span class="count">in namespace {target} where a document names none</span>
      </div>
      <div class="tools">
        <Action
          primary
          icon="plus"
          label={busy === "Creating…" ? busy : "Create objects"}
          onClick={() => send(false)}
          disabled={!!busy}
        />
        <Action label={busy === "Checking…" ? busy : "Check only"} onClick={() => send(true)} disabled={!!busy} />
        <label class="button file">
          <input type="file" multiple accept=".yaml,.yml,.json" onChange={read} />
          <span>Open files…</span>
        </label>
      </div>
      <Problem error={problem} />
      {results.length > 0 && (
        <section class="card" aria-live="polite">
          <h2>
            {plural(results.length - failed, "object")} {results[0].dryRun ? "would be created" : "created"}
            {failed > 0 && `, ${failed} refused`}
          </h2>
          <ul class="plain results">
            {results.map(({ object, made, kind, error, warnings, dryRun }) => (
              <li>
                <span class={error ? "status bad" : "status good"}>
                  {object.kind}{" "}
                  {made && !dryRun ? (
                    <a href={objectUrl(kind.key, made.metadata.namespace, made.metadata.name)}>{made.metadata.name}</a>
                  ) : (
                    object.metadata?.name || object.metadata?.generateName || ""
                  )}
                </span>
                {warnings?.map((warning) => (
                  <p class="warning">{warning}</p>
                ))}
                <Problem error={error} />
              </li>
            ))}
          </ul>
        </section>
      )}
      <Editor label="YAML to create" value={text} onInput={setText} badLine={problem?.line} disabled={!!busy} />
    </>
  );
}
