// Every kind that the API serves, custom ones too.

import { useEffect, useState } from "preact/hooks";
import { kinds } from "./api.js";
import { listUrl } from "./router.js";
import { Filter } from "./list.jsx";
import { Problem } from "./ui.jsx";

export function Kinds() {
  const [all, setAll] = useState(null);
  const [error, setError] = useState(null);
  const [filter, setFilter] = useState("");
  useEffect(() => void kinds(true).then(setAll, setError), []);
  const word = filter.toLowerCase();
  const groups = new Map();
  for (const kind of all?.values() || []) {
    const text = `${kind.kind} ${kind.key} ${kind.shortNames.join(" ")}`.toLowerCase();
    if (!text.includes(word)) continue;
    if (!groups.has(kind.group)) groups.set(kind.group, []);
    groups.get(kind.group).push(kind);
  }
  return (
    <>
      <div class="title">
        <h1>All kinds</h1>
        <Filter value={filter} onInput={setFilter} />
      </div>
      <Problem error={error} />
      <div class="groups">
        {[...groups]
          .sort(([a], [b]) => a.localeCompare(b))
          .map(([group, members]) => (
            <section class="card" key={group}>
              <h2>{group || "core"}</h2>
              <ul class="plain">
                {members
                  .sort((a, b) => a.kind.localeCompare(b.kind))
                  .map((kind) => (
                    <li key={kind.key}>
                      <a href={listUrl(kind.key)}>{kind.kind}</a>{" "}
                      <span class="faint">
                        {kind.version}
                        {kind.namespaced ? "" : ", whole cluster"}
                      </span>
                    </li>
                  ))}
              </ul>
            </section>
          ))}
      </div>
    </>
  );
}
