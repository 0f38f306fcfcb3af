// YAML to read and to write: a coloured view, a text area with line numbers, and lines of a change.

import { useRef } from "preact/hooks";
import { diff } from "./change.js";

function valueClass(text) {
  if (/^(true|false|null|~)$/.test(text)) return "y-word";
  if (/^-?[0-9][0-9.eE+-]*$/.test(text)) return "y-number";
  if (/^[|>][0-9+-]*$/.test(text)) return "y-mark";
  return "y-text";
}

/** One line, coloured. Only for what we wrote ourselves: keys stand at the line's start. */
function Line({ text }) {
  const found = /^(\s*(?:- )*)((?:"(?:[^"\\]|\\.)*"|[^\s"'#:][^:]*?):)(?: (.*))?$/.exec(text);
  if (found) {
    const [, space, key, value] = found;
    return (
      <>
        {space}
        <span class="y-key">{key}</span>
        {value !== undefined && <span class={valueClass(value)}> {value}</span>}
        {"\n"}
      </>
    );
  }
  const item = /^(\s*(?:- )+)(.*)$/.exec(text);
  if (item) {
    return (
      <>
        {item[1]}
        <span class={valueClass(item[2])}>{item[2]}</span>
        {"\n"}
      </>
    );
  }
  return <span class="y-text">{`${text}\n`}</span>;
}

export function YamlView({ text }) {
  return (
    <pre class="code yaml" tabIndex={0} aria-label="YAML">
      {text
        .trimEnd()
        .split("\n")
        .map((line, at) => (
          <Line key={at} text={line} />
        ))}
    </pre>
  );
}

/** Tab indents; Escape and then Tab leaves, for those who have no mouse. */
export function Editor({ value, onInput, label, badLine, disabled }) {
  const numbers = useRef(null);
  const leaving = useRef(false);
  const count = value.split("\n").length;
  const keys = (event) => {
    if (event.key === "Escape") {
      leaving.current = true;
    } else if (event.key === "Tab" && !event.shiftKey && !leaving.current) {
      event.preventDefault();
      const area = event.target;
      area.setRangeText("  ", area.selectionStart, area.selectionEnd, "end");
      onInput(area.value);
    } else if (event.key !== "Shift") {
      leaving.current = false;
    }
  };
  return (
    <div class="editor">
      <pre class="numbers" ref={numbers} aria-hidden="true">
        {Array.from({ length: count }, (_, at) => (
          <span key={at} class={badLine === at + 1 ? "bad" : ""}>{`${at + 1}\n`}</span>
        ))}
      </pre>
      <textarea
        value={value}
        aria-label={label}
        spellcheck={false}
        autocapitalize="off"
        autocomplete="off"
        wrap="off"
        disabled={disabled}
        onInput={(event) => onInput(event.target.value)}
        onKeyDown={keys}
        onScroll={(event) => (numbers.current.scrollTop = event.target.scrollTop)}
      />
    </div>
  );
}

const MARK = { same: " ", gone: "−", new: "+", cut: " " };

export function Difference({ before, after }) {
  const lines = diff(before, after);
  if (!lines.some(([kind]) => kind === "new" || kind === "gone")) return <p class="empty">This changes nothing.</p>;
  return (
    <pre class="code difference" aria-label="Changes">
      {lines.map(([kind, text], at) => (
        <span key={at} class={`d-${kind}`}>{`${MARK[kind]} ${text}\n`}</span>
      ))}
    </pre>
  );
}
