// What one does to an object: scale, restart, cordon, delete.

import { useState } from "preact/hooks";
import { patch, pathOf, remove } from "./api.js";
import { Action, Dialog, Problem, toast } from "./ui.jsx";

const RESTARTABLE = new Set(["deployments.apps", "daemonsets.apps", "statefulsets.apps"]);
/** What takes much with it: its name has to be typed. */
const PRECIOUS = new Set([
  "namespaces",
  "nodes",
  "persistentvolumes",
  "persistentvolumeclaims",
  "customresourcedefinitions.apiextensions.k8s.io",
]);

/** A dialog whose button does something that may be refused. */
function Ask({ title, label, danger, ready = true, run, onClose, children }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await run();
      onClose();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={submit}>
        {children}
        <Problem error={error} />
        <div class="tools end">
          <Action label="Cancel" onClick={onClose} autofocus={danger} />
          <button type="submit" class={`button ${danger ? "danger" : "primary"}`} disabled={busy || !ready}>
            {label}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Scale({ kind, object, onClose }) {
  const { name, namespace } = object.metadata;
  const now = object.spec?.replicas ?? 1;
  const [count, setCount] = useState(now);
  const run = async () => {
    await patch(pathOf(kind, namespace, name, "scale"), { spec: { replicas: count } });
    toast(`${name} is being scaled to ${count}`);
  };
  const ready = Number.isInteger(count) && count >= 0;
  return (
    <Ask title={`Scale ${name}`} label="Scale" run={run} onClose={onClose} ready={ready}>
      <label class="field">
        <span>Replicas (now {now})</span>
        <span class="stepper">
          <Action label="−" onClick={() => setCount(Math.max(0, count - 1))} />
          <input
            type="number"
            min="0"
            step="1"
            autofocus
            value={count}
            onInput={(event) => setCount(event.target.value === "" ? NaN : Number(event.target.value))}
          />
          <Action label="+" onClick={() => setCount(count + 1)} />
        </span>
      </label>
    </Ask>
  );
}

function Restart({ kind, object, onClose }) {
  const { name, namespace } = object.metadata;
  const run = async () => {
    const annotations = { "kubectl.kubernetes.io/restartedAt": new Date().toISOString().replace(/\.\d+Z$/, "Z") };
    await patch(pathOf(kind, namespace, name), { spec: { template: { metadata: { annotations } } } });
    toast(`${name} restarts`);
  };
  return (
    <Ask title={`Restart ${name}?`} label="Restart" run={run} onClose={onClose}>
      <p>Its pods are replaced, as its update strategy says.</p>
    </Ask>
  );
}

function Cordon({ kind, object, onClose }) {
  const { name } = object.metadata;
  const closed = object.spec?.unschedulable === true;
  const run = async () => {
    await patch(pathOf(kind, "", name), { spec: { unschedulable: closed ? null : true } });
    toast(closed ? `${name} takes pods again` : `${name} takes no new pods`);
  };
  return (
    <Ask
      title={closed ? `Uncordon ${name}?` : `Cordon ${name}?`}
      label={closed ? "Uncordon" : "Cordon"}
      run={run}
      onClose={onClose}
    >
      <p>{closed ? "New pods may be placed on it again." : "No new pods are placed on it. Those that run stay."}</p>
    </Ask>
  );
}

function Delete({ kind, object, onClose, onDone }) {
  const { name, namespace } = object.metadata;
  const [dependents, setDependents] = useState("Background");
  const [now, setNow] = useState(false);
  const [typed, setTyped] = useState("");
  const precious = PRECIOUS.has(kind.key);
  const run = async () => {
    const options = { propagationPolicy: dependents, preconditions: { uid: object.metadata.uid } };
    if (now) options.gracePeriodSeconds = 0;
    await remove(pathOf(kind, namespace, name), options);
    toast(`${kind.kind} ${name} is being deleted`);
    onDone?.();
  };
  return (
    <Ask
      title={`Delete ${kind.kind} ${name}?`}
      label="Delete"
      danger
      run={run}
      onClose={onClose}
      ready={!precious || typed === name}
    >
      {namespace && <p>In namespace {namespace}. This cannot be undone.</p>}
      {!namespace && <p>This cannot be undone.</p>}
      {kind.key === "namespaces" && <p>Everything inside it goes with it.</p>}
      <label class="field">
        <span>What it owns</span>
        <select value={dependents} onChange={(event) => setDependents(event.target.value)}>
          <option value="Background">is deleted after it</option>
          <option value="Foreground">is deleted before it</option>
          <option value="Orphan">stays</option>
        </select>
      </label>
      {kind.key === "pods" && (
        <label class="check">
          <input type="checkbox" checked={now} onChange={(event) => setNow(event.target.checked)} />
          At once, without time to end well
        </label>
      )}
      {precious && (
        <label class="field">
          <span>Type its name to confirm</span>
          <input value={typed} autocomplete="off" onInput={(event) => setTyped(event.target.value)} />
        </label>
      )}
    </Ask>
  );
}

/** The buttons for what this kind allows, and the dialog that is open. */
export function Actions({ kind, object, onDeleted }) {
  const [open, setOpen] = useState("");
  const close = () => setOpen("");
  const may = (verb) => kind.verbs.includes(verb);
  const common = { kind, object, onClose: close };
  return (
    <>
      {kind.subresources.includes("scale") && <Action icon="scale" label="Scale" onClick={() => setOpen("scale")} />}
      {RESTARTABLE.has(kind.key) && <Action icon="restart" label="Restart" onClick={() => setOpen("restart")} />}
      {kind.key === "nodes" && (
        <Action label={object.spec?.unschedulable ? "Uncordon" : "Cordon"} onClick={() => setOpen("cordon")} />
      )}
      {may("delete") && <Action icon="trash" label="Delete" danger onClick={() => setOpen("delete")} />}
      {open === "scale" && <Scale {...common} />}
      {open === "restart" && <Restart {...common} />}
      {open === "cordon" && <Cordon {...common} />}
      {open === "delete" && <Delete {...common} onDone={onDeleted} />}
    </>
  );
}
