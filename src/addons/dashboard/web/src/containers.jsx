// The containers of a pod.

import { Fragment } from "preact";
import { objectUrl } from "./router.js";
import { Age, Icon, Status } from "./ui.jsx";

const port = ({ name, containerPort, protocol }) => `${name ? `${name}: ` : ""}${containerPort}/${protocol || "TCP"}`;

function stateOf(status) {
  const { state = {}, ready } = status || {};
  if (state.running)
    return {
      word: ready ? "Running" : "Running, not ready",
      as: ready ? "good" : "waiting",
      since: state.running.startedAt,
    };
  if (state.waiting) return { word: state.waiting.reason || "Waiting", text: state.waiting.message };
  if (state.terminated) {
    const { reason, exitCode, message, finishedAt } = state.terminated;
    return {
      word: reason || "Ended",
      as: exitCode === 0 ? "good" : "bad",
      text: `exit code ${exitCode}${message ? `: ${message}` : ""}`,
      since: finishedAt,
    };
  }
  return { word: "Waiting", as: "waiting" };
}

function Container({ container, status, pod, note }) {
  const { word, as, text, since } = stateOf(status);
  const last = status?.lastState?.terminated;
  const { namespace, name } = pod.metadata;
  const amounts = (amount) =>
    amount &&
    Object.entries(amount)
      .map(([what, value]) => `${what} ${value}`)
      .join(", ");
  const command = [...(container.command || []), ...(container.args || [])].join(" ");
  const rows = [
    ["Image", <span class="break">{container.image}</span>],
    ["Command", command && <code class="break">{command}</code>],
    ["Ports", (container.ports || []).map(port).join(", ")],
    ["Requests", amounts(container.resources?.requests)],
    ["Limits", amounts(container.resources?.limits)],
    ["Restarts", status?.restartCount > 0 && `${status.restartCount}`],
    [
      "Ended before",
      last && (
        <>
          {last.reason}, exit code {last.exitCode}, <Age of={last.finishedAt} /> ago
        </>
      ),
    ],
    [
      "Mounts",
      container.volumeMounts?.length > 0 && (
        <ul class="plain">
          {container.volumeMounts.map((mount) => (
            <li>
              <code>{mount.mountPath}</code>{" "}
              <span class="faint">
                {mount.name}
                {mount.readOnly ? ", read only" : ""}
              </span>
            </li>
          ))}
        </ul>
      ),
    ],
    ["Environment", container.env?.length > 0 && <Environment env={container.env} />],
  ].filter(([, value]) => value);
  return (
    <div class="container">
      <header>
        <b>{container.name}</b> {note && <span class="faint">{note}</span>}
        <Status word={word} as={as} />
        {since && (
          <span class="faint">
            <Age of={since} />
          </span>
        )}
        <span class="spring" />
        <a
          class="button quiet"
          href={`${objectUrl("pods", namespace, name, "logs")}?container=${encodeURIComponent(container.name)}`}
        >
          <Icon name="logs" /> <span>Logs</span>
        </a>
      </header>
      {text && <p class={as === "good" ? "faint" : "warning"}>{text}</p>}
      <dl>
        {rows.map(([what, value]) => (
          <Fragment key={what}>
            <dt>{what}</dt>
            <dd>{value}</dd>
          </Fragment>
        ))}
      </dl>
    </div>
  );
}

function Environment({ env }) {
  const from = ({ configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef }) =>
    (configMapKeyRef && `config map ${configMapKeyRef.name}, ${configMapKeyRef.key}`) ||
    (secretKeyRef && `secret ${secretKeyRef.name}, ${secretKeyRef.key}`) ||
    fieldRef?.fieldPath ||
    resourceFieldRef?.resource;
  return (
    <details>
      <summary>{env.length}</summary>
      <ul class="plain">
        {env.map(({ name, value, valueFrom }) => (
          <li key={name}>
            <code class="break">
              {name}={value ?? ""}
            </code>{" "}
            {valueFrom && <span class="faint">from {from(valueFrom)}</span>}
          </li>
        ))}
      </ul>
    </details>
  );
}

export function Containers({ pod }) {
  const { spec, status = {} } = pod;
  const of = (containers, statuses, note) =>
    (containers || []).map((container) => (
      <Container
        key={container.name}
        container={container}
        pod={pod}
        note={note}
        status={(statuses || []).find(({ name }) => name === container.name)}
      />
    ));
  return (
    <section class="card">
      <h2>Containers</h2>
      {of(spec.initContainers, status.initContainerStatuses, "init")}
      {of(spec.containers, status.containerStatuses)}
      {of(spec.ephemeralContainers, status.ephemeralContainerStatuses, "debug")}
    </section>
  );
}
