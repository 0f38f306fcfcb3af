// Objects that belong together: those an object names, and those that are found by selector or owner.

import { useEffect, useState } from "preact/hooks";
import { TABLE, kindFor, kindOf, get, pathOf } from "./api.js";
import { Table } from "./list.jsx";
import { objectUrl } from "./router.js";

const equals = (labels) =>
  Object.entries(labels || {})
    .map(([key, value]) => `${key}=${value}`)
    .join(",");

/** A label selector as the API takes it in a query; empty if it selects nothing. */
export function selectorOf(selector) {
  if (!selector) return "";
  const words = { In: "in", NotIn: "notin" };
  const expressions = (selector.matchExpressions || []).map(({ key, operator, values }) => {
    if (operator === "Exists") return key;
    if (operator === "DoesNotExist") return `!${key}`;
    return `${key} ${words[operator]} (${values.join(",")})`;
  });
  return [equals(selector.matchLabels), ...expressions].filter(Boolean).join(",");
}

const podsOf = (labelSelector) =>
  labelSelector ? [{ title: "Pods", key: "pods", parameters: { labelSelector } }] : [];
const owned = ({ spec }) => podsOf(selectorOf(spec.selector));

/** Tables of related objects: what to ask for and, where the question is too wide, whose to keep. */
const TABLES = {
  "deployments.apps": (object) => [
    {
      title: "Replica sets",
      key: "replicasets.apps",
      parameters: { labelSelector: selectorOf(object.spec.selector) },
      owner: object.metadata.uid,
    },
    ...owned(object),
  ],
  "replicasets.apps": owned,
  "statefulsets.apps": owned,
  "daemonsets.apps": owned,
  "jobs.batch": owned,
  replicationcontrollers: ({ spec }) => podsOf(equals(spec.selector)),
  "cronjobs.batch": ({ metadata }) => [{ title: "Jobs", key: "jobs.batch", parameters: {}, owner: metadata.uid }],
  services: ({ spec, metadata }) => [
    {
      title: "Endpoint slices",
      key: "endpointslices.discovery.k8s.io",
      parameters: { labelSelector: `kubernetes.io/service-name=${metadata.name}` },
    },
    ...podsOf(equals(spec.selector)),
  ],
  nodes: ({ metadata }) => [
    { title: "Pods", key: "pods", parameters: { fieldSelector: `spec.nodeName=${metadata.name}` }, everywhere: true },
  ],
};

/** Names that an object holds: kind and name, in its own namespace. */
function named({ kind, spec = {}, metadata }) {
  const found = [];
  const add = (key, name) =>
    name &&
    !found.some((one) => one.key === key && one.name === name) &&
    found.push({ key, name, namespace: metadata.namespace });
  const pod = kind === "Pod" ? spec : spec.template?.spec || spec.jobTemplate?.spec?.template?.spec;
  for (const volume of pod?.volumes || []) {
    add("configmaps", volume.configMap?.name);
    add("secrets", volume.secret?.secretName);
    add("persistentvolumeclaims", volume.persistentVolumeClaim?.claimName);
    for (const source of volume.projected?.sources || []) {
      add("configmaps", source.configMap?.name);
      add("secrets", source.secret?.name);
    }
  }
  for (const container of [...(pod?.initContainers || []), ...(pod?.containers || [])]) {
    for (const { valueFrom } of container.env || []) {
      add("configmaps", valueFrom?.configMapKeyRef?.name);
      add("secrets", valueFrom?.secretKeyRef?.name);
    }
    for (const { configMapRef, secretRef } of container.envFrom || []) {
      add("configmaps", configMapRef?.name);
      add("secrets", secretRef?.name);
    }
  }
  if (kind === "Ingress") {
    for (const { http } of spec.rules || [])
      for (const { backend } of http?.paths || []) add("services", backend.service?.name);
    add("services", spec.defaultBackend?.service?.name);
    for (const { secretName } of spec.tls || []) add("secrets", secretName);
  }
  if (kind === "ServiceAccount") for (const { name } of metadata.secrets || []) add("secrets", name);
  return found;
}

function Owners({ object }) {
  const [owners, setOwners] = useState([]);
  const references = object.metadata.ownerReferences || [];
  useEffect(() => {
    let here = true;
    Promise.all(
      references.map(async (reference) => ({ reference, kind: await kindFor(reference.apiVersion, reference.kind) })),
    ).then(
      (found) => here && setOwners(found),
      () => {},
    );
    return () => (here = false);
  }, [JSON.stringify(references)]);
  return owners.map(({ reference, kind }) => (
    <li key={reference.uid}>
      <span class="faint">belongs to {reference.kind}</span>{" "}
      {kind ? (
        <a href={objectUrl(kind.key, kind.namespaced ? object.metadata.namespace : "", reference.name)}>
          {reference.name}
        </a>
      ) : (
        reference.name
      )}
    </li>
  ));
}

function RelatedTable({ title, of, namespace }) {
  const [live, setLive] = useState(null);
  const wanted = JSON.stringify([of, namespace]);
  useEffect(() => {
    let here = true;
    (async () => {
      const kind = await kindOf(of.key);
      if (!kind) return;
      const path = pathOf(kind, of.everywhere ? "" : namespace);
      // Not live: a browser has few streams, and the object itself and its events are.
      const load = async () => {
        const table = await get(path, { parameters: of.parameters, accept: TABLE });
        const rows = table.rows.filter(
          (row) => !of.owner || row.object.metadata.ownerReferences?.some(({ uid }) => uid === of.owner),
        );
        const items = new Map(rows.map((row) => [row.object.metadata.uid, row]));
        if (here) setLive({ items, columns: table.columnDefinitions, state: "live" });
      };
      await load();
    })().catch((error) => here && setLive({ items: new Map(), error }));
    return () => (here = false);
  }, [wanted, of.version]);
  if (!live) return null;
  return (
    <section class="card">
      <h2>{title}</h2>
      <Table kindKey={of.key} live={live} withNamespace={of.everywhere} />
    </section>
  );
}

export function Related({ kind, object }) {
  const links = named(object);
  const owners = object.metadata.ownerReferences?.length > 0;
  // The tables are read again when the object's status moves.
  const version = JSON.stringify(object.status ?? object.metadata.resourceVersion);
  return (
    <>
      {(TABLES[kind.key]?.(object) || []).map(({ title, ...of }) => (
        <RelatedTable key={title} title={title} of={{ ...of, version }} namespace={object.metadata.namespace} />
      ))}
      {(owners || links.length > 0) && (
        <section class="card">
          <h2>Related</h2>
          <ul class="plain">
            {owners && <Owners object={object} />}
            {links.map(({ key, name, namespace }) => (
              <li key={key + name}>
                <span class="faint">
                  uses{" "}
                  {key
                    .replace(/s$/, "")
                    .replace("persistentvolumeclaim", "volume claim")
                    .replace("configmap", "config map")}
                </span>{" "}
                <a href={objectUrl(key, namespace, name)}>{name}</a>
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  );
}
