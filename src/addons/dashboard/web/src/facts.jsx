// What is worth knowing about an object at first sight: one function for each kind, one for all others.

import { Fragment } from "preact";
import { podWord } from "./health.js";
import { ReferenceLink } from "./list.jsx";
import { objectUrl } from "./router.js";
import { Age, Status } from "./ui.jsx";

const list = (values) => (values?.length > 0 ? values.join(", ") : null);
const link = (key, namespace, name) => name && <a href={objectUrl(key, namespace, name)}>{name}</a>;
const selectorText = (selector) => {
  if (!selector) return null;
  const labels = Object.entries(selector.matchLabels ?? (selector.matchExpressions ? {} : selector));
  const expressions = (selector.matchExpressions || []).map(
    ({ key, operator, values }) => `${key} ${operator} ${values?.join(", ") ?? ""}`,
  );
  return [...labels.map(([key, value]) => `${key}=${value}`), ...expressions].join(", ");
};
const images = (template) => list((template?.spec?.containers || []).map((container) => container.image));
const replicas = ({ spec = {}, status = {} }) =>
  `${status.readyReplicas ?? 0} ready of ${spec.replicas ?? 1} wanted` +
  (status.updatedReplicas !== undefined ? `, ${status.updatedReplicas} up to date` : "");
const ports = (all) =>
  list(
    (all || []).map(({ name, port, targetPort, nodePort, protocol }) => {
      const node = nodePort ? `, node port ${nodePort}` : "";
      return `${name ? `${name}: ` : ""}${port} → ${targetPort ?? port}/${protocol || "TCP"}${node}`;
    }),
  );

const FACTS = {
  pods: (pod) => {
    const { spec, status = {}, metadata } = pod;
    return [
      ["Status", <Status word={podWord(pod)} />],
      ["Node", link("nodes", "", spec.nodeName)],
      ["Address", list((status.podIPs || []).map(({ ip }) => ip)) ?? status.podIP],
      ["Service account", link("serviceaccounts", metadata.namespace, spec.serviceAccountName)],
      ["Quality of service", status.qosClass],
      ["Restart policy", spec.restartPolicy],
      ["Priority", spec.priorityClassName || spec.priority || null],
      ["Message", status.message],
    ];
  },
  "deployments.apps": (object) => [
    ["Replicas", replicas(object)],
    ["Strategy", object.spec.strategy?.type],
    ["Selector", selectorText(object.spec.selector)],
    ["Images", images(object.spec.template)],
    ["Paused", object.spec.paused ? "yes" : null],
  ],
  "replicasets.apps": (object) => [
    ["Replicas", replicas(object)],
    ["Selector", selectorText(object.spec.selector)],
    ["Images", images(object.spec.template)],
  ],
  "statefulsets.apps": (object) => [
    ["Replicas", replicas(object)],
    ["Service", link("services", object.metadata.namespace, object.spec.serviceName)],
    ["Selector", selectorText(object.spec.selector)],
    ["Images", images(object.spec.template)],
  ],
  "daemonsets.apps": ({ spec, status = {} }) => [
    ["Pods", `${status.numberReady ?? 0} ready of ${status.desiredNumberScheduled ?? 0} wanted`],
    ["Selector", selectorText(spec.selector)],
    ["Images", images(spec.template)],
  ],
  replicationcontrollers: (object) => [
    ["Replicas", replicas(object)],
    ["Selector", selectorText(object.spec.selector)],
    ["Images", images(object.spec.template)],
  ],
  "jobs.batch": ({ spec, status = {} }) => [
    ["Completions", `${status.succeeded ?? 0} of ${spec.completions ?? 1}`],
    ["Active", status.active ?? 0],
    ["Failed", status.failed ?? 0],
    ["Images", images(spec.template)],
  ],
  "cronjobs.batch": ({ spec, status = {} }) => [
    ["Schedule", `${spec.schedule}${spec.timeZone ? ` (${spec.timeZone})` : ""}`],
    ["Suspended", spec.suspend ? "yes" : "no"],
    ["Last run", status.lastScheduleTime && <Age of={status.lastScheduleTime} />],
    ["Images", images(spec.jobTemplate?.spec?.template)],
  ],
  services: ({ spec, status = {} }) => [
    ["Type", spec.type],
    ["Cluster address", list(spec.clusterIPs) ?? spec.clusterIP],
    [
      "External address",
      list((status.loadBalancer?.ingress || []).map(({ ip, hostname }) => ip || hostname)) ?? list(spec.externalIPs),
    ],
    ["External name", spec.externalName],
    ["Ports", ports(spec.ports)],
    ["Selector", selectorText(spec.selector)],
    ["Session affinity", spec.sessionAffinity === "None" ? null : spec.sessionAffinity],
  ],
  "endpointslices.discovery.k8s.io": (object) => [
    ["Address type", object.addressType],
    [
      "Ports",
      list((object.ports || []).map(({ name, port, protocol }) => `${name ? `${name}: ` : ""}${port}/${protocol}`)),
    ],
    [
      "Endpoints",
      <ul class="plain">
        {(object.endpoints || []).map((endpoint) => (
          <li>
            {endpoint.addresses.join(", ")}{" "}
            {endpoint.targetRef && link("pods", endpoint.targetRef.namespace, endpoint.targetRef.name)}{" "}
            <Status
              word={endpoint.conditions?.ready === false ? "not ready" : "ready"}
              as={endpoint.conditions?.ready === false ? "waiting" : "good"}
            />
          </li>
        ))}
      </ul>,
    ],
  ],
  "ingresses.networking.k8s.io": ({ spec, status = {}, metadata }) => {
    const target = ({ service, resource } = {}) =>
      service ? (
        <>
          {link("services", metadata.namespace, service.name)}:{service.port?.name || service.port?.number}
        </>
      ) : (
        resource?.name
      );
    return [
      ["Class", spec.ingressClassName],
      ["Address", list((status.loadBalancer?.ingress || []).map(({ ip, hostname }) => ip || hostname))],
      ["Default backend", spec.defaultBackend && target(spec.defaultBackend)],
      [
        "Rules",
        spec.rules?.length > 0 && (
          <ul class="plain">
            {spec.rules.flatMap((rule) =>
              (rule.http?.paths || []).map((path) => (
                <li>
                  <code>
                    {rule.host || "*"}
                    {path.path || "/"}
                  </code>{" "}
                  <span class="faint">{path.pathType}</span> → {target(path.backend)}
                </li>
              )),
            )}
          </ul>
        ),
      ],
      [
        "TLS",
        list(
          (spec.tls || []).map(
            ({ hosts, secretName }) => `${hosts?.join(", ") || "*"} with ${secretName || "the default certificate"}`,
          ),
        ),
      ],
    ];
  },
  persistentvolumeclaims: ({ spec, status = {} }) => [
    ["Status", <Status word={status.phase} />],
    ["Volume", link("persistentvolumes", "", spec.volumeName)],
    ["Size", status.capacity?.storage ?? `${spec.resources?.requests?.storage} wanted`],
    ["Access", list(spec.accessModes)],
    ["Storage class", link("storageclasses.storage.k8s.io", "", spec.storageClassName)],
  ],
  persistentvolumes: ({ spec, status = {} }) => [
    ["Status", <Status word={status.phase} />],
    ["Claim", spec.claimRef && link("persistentvolumeclaims", spec.claimRef.namespace, spec.claimRef.name)],
    ["Size", spec.capacity?.storage],
    ["Access", list(spec.accessModes)],
    ["When released", spec.persistentVolumeReclaimPolicy],
    ["Storage class", link("storageclasses.storage.k8s.io", "", spec.storageClassName)],
    ["Path", spec.hostPath?.path || spec.local?.path],
  ],
  "storageclasses.storage.k8s.io": (object) => [
    ["Provisioner", object.provisioner],
    ["When released", object.reclaimPolicy],
    ["Binding", object.volumeBindingMode],
    ["Default", object.metadata.annotations?.["storageclass.kubernetes.io/is-default-class"] === "true" ? "yes" : "no"],
  ],
  nodes: ({ spec, status = {} }) => [
    ["Addresses", list((status.addresses || []).map(({ type, address }) => `${type}: ${address}`))],
    ["Kubelet", status.nodeInfo?.kubeletVersion],
    [
      "System",
      list([status.nodeInfo?.osImage, status.nodeInfo?.kernelVersion, status.nodeInfo?.architecture].filter(Boolean)),
    ],
    ["Containers run by", status.nodeInfo?.containerRuntimeVersion],
    ["Pod addresses", spec.podCIDR],
    ["Allocatable", list(Object.entries(status.allocatable || {}).map(([name, amount]) => `${name} ${amount}`))],
    [
      "Taints",
      list((spec.taints || []).map(({ key, value, effect }) => `${key}${value ? `=${value}` : ""}:${effect}`)),
    ],
    ["New pods", spec.unschedulable ? <Status word="not placed here" as="waiting" /> : null],
  ],
  namespaces: ({ status = {} }) => [["Status", <Status word={status.phase} />]],
  events: (event) => {
    const about = event.involvedObject || {};
    return [
      ["Type", <Status word={event.type} as={event.type === "Warning" ? "bad" : ""} />],
      ["Reason", event.reason],
      ["Message", event.message],
      [
        "About",
        <ReferenceLink
          to={about}
        >{`${about.kind} ${about.namespace ? `${about.namespace}/` : ""}${about.name}`}</ReferenceLink>,
      ],
      ["Count", event.series?.count ?? event.count],
      ["From", event.source?.component || event.reportingComponent],
    ];
  },
};

/** The single values of a spec, for kinds that nobody here knows. */
function anyFacts({ spec }) {
  if (typeof spec !== "object" || spec === null) return [];
  return Object.entries(spec)
    .filter(([, value]) => ["string", "number", "boolean"].includes(typeof value))
    .slice(0, 20)
    .map(([name, value]) => [name, String(value)]);
}

export function Facts({ kind, object }) {
  const rows = (FACTS[kind.key] || anyFacts)(object).filter(
    ([, value]) => value !== null && value !== undefined && value !== "" && value !== false,
  );
  if (rows.length === 0) return null;
  return (
    <section class="card">
      <h2>Facts</h2>
      <dl>
        {rows.map(([name, value]) => (
          <Fragment key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </Fragment>
        ))}
      </dl>
    </section>
  );
}

export function Conditions({ conditions }) {
  if (!(conditions?.length > 0)) return null;
  // Most conditions are well when true; these are well when false.
  const inverted = /Pressure$|^(Failed|FailureTarget|Dangling|ReplicaFailure|NetworkUnavailable|Disrupt|Suspended)/;
  const as = ({ type, status }) => {
    if (status === "Unknown") return "waiting";
    return (status === "True") !== inverted.test(type) ? "good" : type === "Failed" ? "bad" : "waiting";
  };
  return (
    <section class="card">
      <h2>Conditions</h2>
      <div class="table-box">
        <table>
          <thead>
            <tr>
              <th>Type</th>
              <th>Status</th>
              <th>Reason</th>
              <th>Message</th>
              <th>Changed</th>
            </tr>
          </thead>
          <tbody>
            {conditions.map((condition) => (
              <tr key={condition.type}>
                <td>{condition.type}</td>
                <td>
                  <Status word={condition.status} as={as(condition)} />
                </td>
                <td>{condition.reason || ""}</td>
                <td class="text">{condition.message || ""}</td>
                <td>
                  <Age of={condition.lastTransitionTime} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
