// What a ConfigMap or Secret holds.

import { useState } from "preact/hooks";
import { Action, copy } from "./ui.jsx";

/** Bytes of base64 as text, or null where they are none. */
function decoded(base64) {
  try {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

function Entry({ name, text, size, hidden }) {
  const [shown, setShown] = useState(!hidden);
  return (
    <div class="entry">
      <header>
        <code>{name}</code>
        <span class="faint">{size}</span>
        <span class="spring" />
        {hidden && <Action quiet icon="eye" label={shown ? "Hide" : "Show"} onClick={() => setShown(!shown)} />}
        {text !== null && <Action quiet icon="copy" label="Copy" onClick={() => copy(text)} />}
      </header>
      {shown && <pre class="code wrap">{text ?? "(not text)"}</pre>}
    </div>
  );
}

/** What a ConfigMap or Secret holds. A secret's values are hidden until asked for. */
export function Data({ object }) {
  if (object.kind !== "ConfigMap" && object.kind !== "Secret") return null;
  const secret = object.kind === "Secret";
  const texts = Object.entries(object.data || {}).map(([name, value]) => [
    name,
    secret ? decoded(value) : value,
    value,
  ]);
  const binary = Object.entries(object.binaryData || {}).map(([name, value]) => [name, decoded(value), value]);
  const all = [...texts, ...binary];
  return (
    <section class="card">
      <h2>Data{secret && object.type && <span class="faint"> {object.type}</span>}</h2>
      {all.length === 0 && <p class="empty">It is empty.</p>}
      {all.map(([name, text, raw]) => (
        <Entry
          key={name}
          name={name}
          text={text}
          hidden={secret}
          size={`${text === null ? Math.floor((raw.length * 3) / 4) : new Blob([text]).size} bytes`}
        />
      ))}
    </section>
  );
}
