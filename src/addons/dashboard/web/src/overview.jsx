// How the cluster does, at a glance.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, kindOf, pathOf } from "./api.js";
import { EventTable } from "./events.jsx";
import { bytes, cores, plural, quantity } from "./format.js";
import { health } from "./health.js";
import { titleOf } from "./navigation.js";
import { listUrl, objectUrl } from "./router.js";
import { Empty, LiveMark, Problem, Status, useLive } from "./ui.jsx";

const COUNTED = [
  "deployments.apps",
  "statefulsets.apps",
  "daemonsets.apps",
  "replicationcontrollers",
  "jobs.batch",
  "persistentvolumeclaims",
];
/** One ConfigMap for each addon that is enabled, and the kinds that tell how it does. */
const RECORD = "mini-addon-";
const ADDON = "mini.local/addon";
const ADDON_KINDS = ["deployments.apps", "daemonsets.apps"];
const SOON = 700;
const EVERY = 30_000;

async function readAll(namespace) {
  const read = async (key, within, parameters) => {
    const kind = await kindOf(key);
    return kind ? (await get(pathOf(kind, within), { parameters })).items : [];
  };
  // What one may not see is left out; the page says so where it matters.
  const ask = async (name, ...question) => [name, await read(...question).catch(() => null)];
  const answers = await Promise.all([
    ask("nodes", "nodes"),
    ask("usage", "nodes.metrics.k8s.io"),
    ...COUNTED.map((key) => ask(key, key, namespace)),
    ask("records", "configmaps", "kube-system", { labelSelector: "mini.local/record=addon" }),
    ...ADDON_KINDS.map((key) => ask(`addon ${key}`, key, "", { labelSelector: ADDON })),
  ]);
  return Object.fromEntries(answers);
}

/** Lists that are not live: read a moment after `trigger` changes, and twice a minute. */
function useLists(trigger, namespace) {
  const [lists, setLists] = useState({});
  const soon = useRef(() => {});
  useEffect(() => {
    let timer = 0;
    let due = Infinity;
    let here = true;
    const plan = (wait) => {
      if (Date.now() + wait >= due) return;
      clearTimeout(timer);
      due = Date.now() + wait;
      timer = setTimeout(load, wait);
    };
    const load = async () => {
      due = Infinity;
      if (!document.hidden) {
        const read = await readAll(namespace).catch(() => null);
        if (!here) return;
        if (read) setLists({ ...read, of: namespace });
      }
      plan(EVERY);
    };
    soon.current = () => plan(SOON);
    plan(0);
    return () => {
      here = false;
      clearTimeout(timer);
    };
  }, [namespace]);
  useEffect(() => soon.current(), [trigger]);
  return lists.of === namespace ? lists : {};
}

function Meter({ label, used, of, text }) {
  const share = of > 0 ? Math.min(1, used / of) : 0;
  return (
    <div class="meter">
      <span>{label}</span>
      <meter min="0" max="1" high="0.9" value={share} aria-label={label} />
      <span class="faint">{text}</span>
    </div>
  );
}

function requested(pods, resource) {
  const of = (containers) =>
    (containers || []).reduce((sum, container) => sum + quantity(container.resources?.requests?.[resource] ?? 0), 0);
  return pods.reduce((sum, pod) => sum + of(pod.spec.containers), 0);
}

/** `pods` may be those of one namespace: then the card says so. */
function NodeCard({ node, pods, usage, namespace }) {
  const { metadata, status = {}, spec = {} } = node;
  const mine = pods.filter(
    (pod) => pod.spec.nodeName === metadata.name && !["Succeeded", "Failed"].includes(pod.status?.phase),
  );
  const { allocatable = {} } = status;
  const [cpu, memory, places] = ["cpu", "memory", "pods"].map((name) => quantity(allocatable[name]));
  const [usedCpu, usedMemory] = ["cpu", "memory"].map((name) => requested(mine, name));
  const ready = health("nodes", node) === "good";
  const troubles = (status.conditions || [])
    .filter(({ type, status: is }) => type !== "Ready" && is === "True")
    .map(({ type }) => type);
  return (
    <section class="card">
      <h2>
        <a href={objectUrl("nodes", "", metadata.name)}>{metadata.name}</a>
        <Status word={ready ? "Ready" : "Not ready"} as={ready ? "good" : "bad"} />
        {spec.unschedulable && <Status word="cordoned" as="waiting" />}
        {troubles.map((trouble) => (
          <Status word={trouble} as="bad" />
        ))}
      </h2>
      <p class="faint">
        {status.nodeInfo?.kubeletVersion} · {status.nodeInfo?.osImage} ·{" "}
        {status.addresses?.find(({ type }) => type === "InternalIP")?.address}
      </p>
      {usage && (
        <>
          <Meter
            label="CPU in use"
            used={quantity(usage.cpu)}
            of={cpu}
            text={`${cores(quantity(usage.cpu))} of ${cores(cpu)} cores`}
          />
          <Meter
            label="Memory in use"
            used={quantity(usage.memory)}
            of={memory}
            text={`${bytes(quantity(usage.memory))} of ${bytes(memory)}`}
          />
        </>
      )}
      <Meter
        label={namespace ? `CPU for ${namespace}` : "CPU requested"}
        used={usedCpu}
        of={cpu}
        text={`${cores(usedCpu)} of ${cores(cpu)} cores`}
      />
      <Meter
        label={namespace ? `Memory for ${namespace}` : "Memory requested"}
        used={usedMemory}
        of={memory}
        text={`${bytes(usedMemory)} of ${bytes(memory)}`}
      />
      <Meter
        label={namespace ? `Pods of ${namespace}` : "Pods"}
        used={mine.length}
        of={places}
        text={`${mine.length} of ${places}`}
      />
    </section>
  );
}

/** Objects of one kind by health: a bar and words, so that colour is not alone. */
function Count({ kindKey, objects }) {
  const counts = { good: 0, waiting: 0, bad: 0 };
  for (const object of objects) counts[health(kindKey, object)] += 1;
  const words = [counts.bad && `${counts.bad} failing`, counts.waiting && `${counts.waiting} waiting`].filter(Boolean);
  return (
    <a class="tile" href={listUrl(kindKey)}>
      <b>{objects.length}</b>
      <span>{titleOf(kindKey)}</span>
      <svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
        {
          ["good", "waiting", "bad"].reduce(
            ({ at, parts }, mood) => {
              const width = objects.length > 0 ? (100 * counts[mood]) / objects.length : 0;
              return { at: at + width, parts: [...parts, <rect class={mood} x={at} y="0" width={width} height="4" />] };
            },
            { at: 0, parts: [] },
          ).parts
        }
      </svg>
      <span class={counts.bad ? "words bad" : counts.waiting ? "words waiting" : "words faint"}>
        {words.join(", ") || (objects.length > 0 ? "all well" : "none")}
      </span>
    </a>
  );
}

/** How an addon does: what its record says, and the health of what it runs. */
function addonState(stage, parts) {
  if (stage !== "enabled") return [stage === "disabling" ? "is being disabled" : "is being enabled", "waiting"];
  const moods = parts.map(({ key, object }) => health(key, object));
  if (moods.includes("bad")) return ["failing", "bad"];
  return moods.includes("waiting") ? ["starting", "waiting"] : ["works", "good"];
}

function Addons({ lists }) {
  const records = (lists.records || []).filter(({ metadata }) => metadata.name.startsWith(RECORD));
  const rows = records.map(({ metadata, data = {} }) => {
    const name = metadata.name.slice(RECORD.length);
    const parts = ADDON_KINDS.flatMap((key) =>
      (lists[`addon ${key}`] || [])
        .filter((object) => object.metadata.labels[ADDON] === name)
        .map((object) => ({ key, object })),
    );
    const [{ key, object } = { key: "configmaps", object: { metadata } }] = parts;
    const [word, mood] = addonState(data.stage, parts);
    return (
      <li key={name}>
        <a href={objectUrl(key, object.metadata.namespace, object.metadata.name)}>{name}</a>
        <span class="faint">{data.version}</span>
        <span class="spring" />
        <Status word={word} as={mood} />
      </li>
    );
  });
  return (
    <section class="card">
      <h2>Addons</h2>
      {rows.length > 0 ? (
        <ul class="plain addons">{rows}</ul>
      ) : (
        <Empty>
          {lists.records ? "None is enabled." : lists.nodes === undefined ? "Loading…" : "You may not see them."}
        </Empty>
      )}
    </section>
  );
}

export function Overview({ namespace }) {
  const within = namespace ? `/namespaces/${encodeURIComponent(namespace)}` : "";
  const pods = useLive({ path: `api/v1${within}/pods` });
  const warnings = useLive({ path: `api/v1${within}/events`, parameters: { fieldSelector: "type=Warning" } });
  const lists = useLists(pods.version, namespace);
  useEffect(() => {
    document.title = "mini dashboard";
  }, []);
  const all = [...pods.items.values()];
  const usages = lists.usage || [];
  const nodes = lists.nodes || [];
  const newest = [...warnings.items.values()]
    .sort((a, b) => new Date(b.lastTimestamp || b.eventTime) - new Date(a.lastTimestamp || a.eventTime))
    .slice(0, 8);
  return (
    <>
      <div class="title">
        <h1>Overview</h1>
        <span class="count">{namespace ? `namespace ${namespace}` : "all namespaces"}</span>
        <LiveMark state={pods.state} />
      </div>
      <Problem error={pods.error} onRetry={pods.retry} />
      <div class="tiles">
        {!pods.error && <Count kindKey="pods" objects={all} />}
        {COUNTED.map((key) => lists[key] && <Count key={key} kindKey={key} objects={lists[key]} />)}
      </div>
      <div class="columns">
        {nodes.map((node) => (
          <NodeCard
            key={node.metadata.uid}
            node={node}
            pods={all}
            namespace={namespace}
            usage={usages.find(({ metadata }) => metadata.name === node.metadata.name)?.usage}
          />
        ))}
        <Addons lists={lists} />
      </div>
      <section class="card">
        <h2>
          Warnings <span class="faint">{warnings.items.size > 0 && plural(warnings.items.size, "event")}</span>
        </h2>
        {warnings.error ? (
          <Problem error={warnings.error} />
        ) : newest.length > 0 ? (
          <EventTable events={newest} withObject />
        ) : (
          <Empty>{warnings.state === "loading" ? "Loading…" : "None. All is quiet."}</Empty>
        )}
      </section>
    </>
  );
}
