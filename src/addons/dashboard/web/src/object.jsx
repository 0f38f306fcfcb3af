// One object: what it is, how it does, what belongs to it; its YAML; a pod's log.

import { useEffect, useState } from "preact/hooks";
import { pathOf } from "./api.js";
import { Actions } from "./actions.jsx";
import { Containers } from "./containers.jsx";
import { Data } from "./data.jsx";
import { EventsOf } from "./events.jsx";
import { Conditions, Facts } from "./facts.jsx";
import { useKind } from "./list.jsx";
import { Logs } from "./logs.jsx";
import { titleOf } from "./navigation.js";
import { ObjectYaml } from "./object-yaml.jsx";
import { Related } from "./related.jsx";
import { listUrl, objectUrl } from "./router.js";
import { Age, Empty, LiveMark, Problem, useLive } from "./ui.jsx";

const FEW = 4;

/** Pairs as chips; many are folded. */
function Pairs({ title, pairs }) {
  const [all, setAll] = useState(false);
  const entries = Object.entries(pairs || {}).filter(
    ([key]) => key !== "kubectl.kubernetes.io/last-applied-configuration",
  );
  if (entries.length === 0) return null;
  return (
    <div class="pairs">
      <span class="faint">{title}</span>
      {entries.slice(0, all ? undefined : FEW).map(([key, value]) => (
        <span class="chip" key={key} title={`${key}: ${value}`}>
          {key}
          {value && <b>{value}</b>}
        </span>
      ))}
      {entries.length > FEW && (
        <button type="button" class="button quiet" onClick={() => setAll(!all)}>
          {all ? "fewer" : `${entries.length - FEW} more`}
        </button>
      )}
    </div>
  );
}

export function ObjectPage({ kindKey, namespace, name, tab, parameters }) {
  const [kind, kindError] = useKind(kindKey);
  const live = useLive(kind ? { path: pathOf(kind, namespace), name } : null);
  // An object that was deleted while one reads stays on the screen, and the page says so.
  const [seen, setSeen] = useState(null);
  const current = [...live.items.values()][0];
  useEffect(() => {
    if (current) setSeen(current);
  }, [current]);
  useEffect(() => {
    document.title = `${name} – mini`;
  }, [name]);
  if (kind === null) return <Empty>The API serves no {kindKey}.</Empty>;
  if (kindError || (live.error && !seen)) {
    return (
      <>
        <div class="title">
          <h1>{name}</h1>
        </div>
        <Problem error={kindError || live.error} onRetry={live.retry} />
      </>
    );
  }
  const object = current || seen;
  if (!object) return <Empty>Loading…</Empty>;
  const gone = !current && live.state !== "loading";
  const { metadata } = object;
  const tabs = [["", "Details"], ...(kindKey === "pods" ? [["logs", "Logs"]] : []), ["yaml", "YAML"]];
  return (
    <>
      <nav class="crumbs" aria-label="Where this is">
        <a href={listUrl(kindKey)}>{titleOf(kindKey, kind)}</a>
        {metadata.namespace && <a href={objectUrl("namespaces", "", metadata.namespace)}>{metadata.namespace}</a>}
      </nav>
      <div class="title">
        <h1 class="break">{metadata.name}</h1>
        <span class="count">
          {kind.kind}, <Age of={metadata.creationTimestamp} /> old
        </span>
        <LiveMark state={live.state} />
        <span class="spring" />
        {!gone && <Actions kind={kind} object={{ kind: kind.kind, ...object }} />}
      </div>
      {gone && <p class="warning">This object has been deleted.</p>}
      {!gone && metadata.deletionTimestamp && (
        <p class="warning">
          It is being deleted
          {metadata.finalizers?.length > 0 && `, and waits for ${metadata.finalizers.join(", ")}`}.
        </p>
      )}
      <nav class="tabs" aria-label="Views">
        {tabs.map(([key, title]) => (
          <a key={key} href={objectUrl(kindKey, namespace, name, key)} aria-current={tab === key ? "page" : undefined}>
            {title}
          </a>
        ))}
      </nav>
      {tab === "" && (
        <div class="details">
          <Pairs title="Labels" pairs={metadata.labels} />
          <Pairs title="Annotations" pairs={metadata.annotations} />
          <Facts kind={kind} object={object} />
          <Data object={object} />
          {kindKey === "pods" && <Containers pod={object} />}
          <Conditions conditions={object.status?.conditions} />
          <Related kind={kind} object={object} />
          {kindKey !== "events" && <EventsOf object={object} />}
        </div>
      )}
      {tab === "logs" && (
        <Logs key={parameters.get("container")} pod={object} kind={kind} container={parameters.get("container")} />
      )}
      {tab === "yaml" && (
        <ObjectYaml
          path={pathOf(kind, namespace, name)}
          object={object}
          mayEdit={!gone && kind.verbs.includes("update")}
        />
      )}
    </>
  );
}
