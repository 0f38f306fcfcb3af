// Events, the newest first.

import { ReferenceLink, lastSeen } from "./list.jsx";
import { Age, Empty, Problem, Status, useLive } from "./ui.jsx";

export function EventTable({ events, withObject }) {
  const rows = [...events].sort((a, b) => new Date(lastSeen(b)) - new Date(lastSeen(a)));
  return (
    <div class="table-box">
      <table>
        <thead>
          <tr>
            <th>Seen</th>
            <th>Type</th>
            <th>Reason</th>
            {withObject && <th>About</th>}
            <th>Message</th>
            <th>Count</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((event) => (
            <tr key={event.metadata.uid}>
              <td>
                <Age of={lastSeen(event)} />
              </td>
              <td>
                <Status word={event.type} as={event.type === "Warning" ? "bad" : ""} />
              </td>
              <td>{event.reason}</td>
              {withObject && (
                <td>
                  <ReferenceLink to={event.involvedObject}>
                    {event.involvedObject.kind} {event.involvedObject.name}
                  </ReferenceLink>
                </td>
              )}
              <td class="text">{event.message}</td>
              <td>{event.series?.count ?? event.count ?? 1}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** What happened to one object. */
export function EventsOf({ object }) {
  const { uid, namespace } = object.metadata;
  // Events of what belongs to no namespace are in `default`; a node's are under its name, not its UID.
  const of =
    object.kind === "Node"
      ? `involvedObject.kind=Node,involvedObject.name=${object.metadata.name}`
      : `involvedObject.uid=${uid}`;
  const live = useLive({
    path: `api/v1/namespaces/${encodeURIComponent(namespace || "default")}/events`,
    parameters: { fieldSelector: of },
  });
  return (
    <section class="card">
      <h2>Events</h2>
      {live.error ? (
        <Problem error={live.error} />
      ) : live.items.size > 0 ? (
        <EventTable events={live.items.values()} />
      ) : (
        <Empty>{live.state === "loading" ? "Loading…" : "Nothing happened lately."}</Empty>
      )}
    </section>
  );
}
