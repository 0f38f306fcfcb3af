// An object as YAML: read it, change it, see what the server would make of it, apply.

import { useState } from "preact/hooks";
import { get, replace } from "./api.js";
import { rebase } from "./change.js";
import { Difference, Editor, YamlView } from "./editor.jsx";
import { fromYaml, toYaml } from "./yaml.js";
import { Action, Problem, copy, toast } from "./ui.jsx";

/** Without what nobody reads. It comes back by itself: the server keeps managed fields when an update leaves them out. */
function tidy(object) {
  const { managedFields, ...metadata } = object.metadata;
  return { ...object, metadata };
}

/** Without what the server counts by itself, so that a review shows one's own changes. */
function changeable(object) {
  const { generation, resourceVersion, ...metadata } = tidy(object).metadata;
  return toYaml({ ...object, metadata });
}

function masked(object) {
  if (object.kind !== "Secret" || !object.data) return object;
  return { ...object, data: Object.fromEntries(Object.keys(object.data).map((key) => [key, "••••••••"])) };
}

export function ObjectYaml({ path, object, mayEdit }) {
  const [full, setFull] = useState(false);
  const [revealed, setRevealed] = useState(false);
  // While one writes: the version that was opened, the text, and what the server said to it.
  const [draft, setDraft] = useState(null);
  const secret = object.kind === "Secret" && object.data;
  if (draft) return <Draft path={path} draft={draft} setDraft={setDraft} />;
  const shown = full ? object : tidy(object);
  const text = toYaml(secret && !revealed ? masked(shown) : shown);
  return (
    <>
      <div class="tools">
        {mayEdit && (
          <Action
            primary
            icon="edit"
            label="Edit"
            onClick={() => setDraft({ base: tidy(object), text: toYaml(tidy(object)) })}
          />
        )}
        <Action icon="copy" label="Copy" onClick={() => copy(text)} />
        {secret && (
          <Action icon="eye" label={revealed ? "Hide values" : "Show values"} onClick={() => setRevealed(!revealed)} />
        )}
        <label class="check">
          <input type="checkbox" checked={full} onChange={(event) => setFull(event.target.checked)} />
          Managed fields
        </label>
      </div>
      <YamlView text={text} />
    </>
  );
}

function Draft({ path, draft, setDraft }) {
  const { base, text, review, error, badLine, busy } = draft;
  const set = (changes) => setDraft((old) => old && { ...old, ...changes });
  const before = toYaml(base);
  const send = async (dryRun) => {
    let object;
    try {
      object = fromYaml(text);
    } catch (problem) {
      return set({ error: problem, badLine: problem.line, review: null });
    }
    set({ busy: true, error: null, badLine: null });
    try {
      const { object: answer, warnings } = await replace(path, object, dryRun);
      if (dryRun) return set({ busy: false, review: { after: changeable(answer), warnings } });
      toast("Applied");
      setDraft(null);
    } catch (problem) {
      set({ busy: false, error: problem, review: null });
    }
  };
  // Somebody else was faster: their version, with our changes on top, is the new starting point.
  const take = async () => {
    try {
      const theirs = tidy(await get(path));
      const mine = {
        ...fromYaml(text),
        metadata: { ...fromYaml(text).metadata, resourceVersion: base.metadata.resourceVersion },
      };
      set({ base: theirs, text: toYaml(rebase(base, mine, theirs)), error: null, review: null });
      toast("Your changes now stand on the newest version. Review them again.");
    } catch (problem) {
      set({ error: problem });
    }
  };
  return (
    <>
      <div class="tools">
        {review ? (
          <>
            <Action primary label={busy ? "Applying…" : "Apply"} onClick={() => send(false)} disabled={busy} />
            <Action label="Back to the text" onClick={() => set({ review: null })} />
          </>
        ) : (
          <Action
            primary
            label={busy ? "Checking…" : "Review changes"}
            onClick={() => send(true)}
            disabled={busy || text === before}
          />
        )}
        <Action label="Cancel" onClick={() => setDraft(null)} />
      </div>
      <Problem error={error} />
      {error?.code === 409 && (
        <p>
          <Action label="Put my changes onto the newest version" onClick={take} />
        </p>
      )}
      {review ? (
        <>
          {review.warnings.map((warning) => (
            <p class="warning">{warning}</p>
          ))}
          <p class="faint">The server accepts this. What it would store:</p>
          <Difference before={changeable(base)} after={review.after} />
        </>
      ) : (
        <Editor label="YAML" value={text} badLine={badLine} onInput={(value) => set({ text: value, badLine: null })} />
      )}
    </>
  );
}
