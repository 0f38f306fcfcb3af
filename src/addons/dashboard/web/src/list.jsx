// A live table of one kind, with the columns that the server gives it.

import { useEffect, useMemo, useState } from "preact/hooks";
import { TABLE, kindFor, kindOf, pathOf } from "./api.js";
import { age, fraction, mood, plural, when } from "./format.js";
import { titleOf } from "./navigation.js";
import { go, objectUrl } from "./router.js";
import { Empty, Icon, LiveMark, Problem, Status, remember, remembered, useLive, useNow } from "./ui.jsx";

const SHOWN = 300;
const STATUS_COLUMNS = new Set(["Status", "Ready", "Phase", "Type", "Conditions", "Established"]);

export function Filter({ value, onInput }) {
  return (
    <label class="filter">
      <Icon name="search" />
      <input
        type="search"
        placeholder="Filter"
        aria-label="Filter"
        value={value}
        onInput={(event) => onInput(event.target.value)}
      />
    </label>
  );
}

/** The kind behind an address: undefined while it is looked up, null if there is none. */
export function useKind(key) {
  const [found, setFound] = useState({});
  useEffect(() => {
    let here = true;
    kindOf(key).then(
      (kind) => here && setFound({ key, kind }),
      (error) => here && setFound({ key, error }),
    );
    return () => (here = false);
  }, [key]);
  return found.key === key ? [found.kind, found.error] : [undefined, null];
}

/** When an event was seen last. */
export const lastSeen = (event) =>
  event.series?.lastObservedTime || event.lastTimestamp || event.eventTime || event.firstTimestamp;

/** Columns as they are drawn: the server's, plus the namespace where several are looked at. */
function columnsOf(definitions, key, withNamespace, wide) {
  const columns = (definitions || [])
    .map((definition, at) => ({ ...definition, at }))
    .filter((column) => wide || column.priority === 0);
  for (const column of columns) {
    if (column.name === "Age") column.time = (row) => row.object?.metadata?.creationTimestamp;
    if (column.name === "Last Seen") column.time = (row) => lastSeen(row.object || {});
  }
  if (withNamespace) columns.splice(key === "events" ? 0 : 1, 0, { name: "Namespace", at: -1 });
  return columns;
}

const cellOf = (row, column) => (column.at < 0 ? row.object?.metadata?.namespace : row.cells[column.at]) ?? "";

function sortValue(row, column) {
  return column.time ? -new Date(column.time(row) || 0).getTime() : cellOf(row, column);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

/** A link to what a reference names; where that is, is looked up when somebody wants to go there. */
export function ReferenceLink({ to, children }) {
  const follow = async (event) => {
    event.preventDefault();
    const kind = await kindFor(to.apiVersion || "v1", to.kind).catch(() => null);
    if (kind) go(objectUrl(kind.key, kind.namespaced ? to.namespace : "", to.name));
  };
  return (
    <a href="#/list/events" onClick={follow}>
      {children}
    </a>
  );
}

function Cell({ row, column, kindKey, now }) {
  const value = cellOf(row, column);
  const { name, namespace } = row.object?.metadata || {};
  if (column.time) {
    const time = column.time(row);
    return time ? <time title={when(time)}>{age(time, now)}</time> : value;
  }
  if (column.format === "name" || (column.name === "Name" && column.at === 0)) {
    return (
      <a href={objectUrl(kindKey, namespace, name)} class="break">
        {String(value)}
      </a>
    );
  }
  if (kindKey === "events" && column.name === "Type")
    return <Status word={value} as={value === "Warning" ? "bad" : ""} />;
  if (column.name === "Object" && row.object?.involvedObject) {
    return <ReferenceLink to={row.object.involvedObject}>{value}</ReferenceLink>;
  }
  if (STATUS_COLUMNS.has(column.name)) {
    const as = mood(value) || (column.name === "Ready" ? fraction(value) : "");
    if (as) return <Status word={String(value)} as={as} />;
  }
  return String(value === "<none>" ? "–" : value);
}

/** `rows` is a live Table; `fixed` hides what every row has in common. */
export function Table({ kindKey, live, withNamespace, filter = "", wide = false }) {
  const now = useNow();
  const [sort, setSort] = useState(kindKey === "events" ? { name: "Last Seen", down: false } : null);
  const [most, setMost] = useState(SHOWN);
  const columns = useMemo(
    () => columnsOf(live.columns, kindKey, withNamespace, wide),
    [live.columns, kindKey, withNamespace, wide],
  );
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (row) => {
    const { labels = {}, namespace } = row.object?.metadata || {};
    const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    return [...row.cells, namespace, ...pairs].join(" ").toLowerCase();
  };
  let rows = [...live.items.values()];
  const total = rows.length;
  if (words.length > 0) rows = rows.filter((row) => words.every((word) => text(row).includes(word)));
  const by = sort && columns.find((column) => column.name === sort.name);
  const place = (row) => `${row.object?.metadata?.namespace || ""}/${row.object?.metadata?.name}`;
  rows.sort(
    by
      ? (a, b) => compare(sortValue(a, by), sortValue(b, by)) * (sort.down ? -1 : 1)
      : (a, b) => compare(place(a), place(b)),
  );

  if (live.error && live.items.size === 0) return <Problem error={live.error} onRetry={live.retry} />;
  if (live.state === "loading") return <Empty>Loading…</Empty>;
  if (rows.length === 0)
    return <Empty>{total > 0 ? `Nothing matches; ${total} are hidden by the filter.` : "There are none."}</Empty>;
  const order = (column) => setSort((old) => ({ name: column.name, down: old?.name === column.name && !old.down }));
  return (
    <>
      <div class="table-box">
        <table>
          <thead>
            <tr>
              {columns.map((column) => (
                <th key={column.name} aria-sort={by === column ? (sort.down ? "descending" : "ascending") : undefined}>
                  <button type="button" title={column.description} onClick={() => order(column)}>
                    {column.name}
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, most).map((row) => (
              <tr key={row.object?.metadata?.uid || place(row)}>
                {columns.map((column) => (
                  <td key={column.name} data-column={column.name}>
                    <Cell row={row} column={column} kindKey={kindKey} now={now} />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rows.length > most && (
        <p>
          <button type="button" class="button" onClick={() => setMost(most + SHOWN)}>
            Show more of {rows.length}
          </button>
        </p>
      )}
    </>
  );
}

/** What a live Table of a kind is made from. */
export const tableOf = (kind, namespace, selectors = {}) => ({
  path: pathOf(kind, namespace),
  accept: TABLE,
  // An event's row is drawn from more than its metadata.
  parameters: { ...selectors, ...(kind.plural === "events" ? { includeObject: "Object" } : {}) },
});

export function ListPage({ kindKey, namespace, filter: initial }) {
  const [kind, error] = useKind(kindKey);
  const [filter, setFilter] = useState(initial);
  const [wide, setWide] = useState(remembered("wide", "") === "yes");
  const within = kind?.namespaced ? namespace : "";
  const live = useLive(kind ? tableOf(kind, within) : null);
  const title = titleOf(kindKey, kind);
  useEffect(() => {
    document.title = `${title} – mini`;
  }, [title]);
  if (kind === null) return <Empty>The API serves no {kindKey}.</Empty>;
  const hasWide = live.columns?.some((column) => column.priority > 0);
  return (
    <>
      <div class="title">
        <h1>{title}</h1>
        <span class="count">{live.state !== "loading" && !live.error && plural(live.items.size, "object")}</span>
        <LiveMark state={live.state} />
        <span class="spring" />
        {hasWide && (
          <label class="check">
            <input
              type="checkbox"
              checked={wide}
              onChange={(event) => {
                remember("wide", event.target.checked ? "yes" : "");
                setWide(event.target.checked);
              }}
            />
            All columns
          </label>
        )}
        <Filter value={filter} onInput={setFilter} />
      </div>
      {error ? (
        <Problem error={error} />
      ) : (
        <Table kindKey={kindKey} live={live} filter={filter} wide={wide} withNamespace={kind?.namespaced && !within} />
      )}
    </>
  );
}
