// Pieces that every page uses.

import { Component } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { age, missingRight, mood, when } from "./format.js";
import { Live } from "./live.js";

const ICONS = {
  menu: "M3 6h18M3 12h18M3 18h18",
  plus: "M12 5v14M5 12h14",
  sun: "M12 4V2m0 20v-2m8-8h2M2 12h2m13.7-5.7 1.4-1.4M4.9 19.1l1.4-1.4m0-11.4L4.9 4.9m14.2 14.2-1.4-1.4M16 12a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-8 9a8 8 0 0 1 16 0",
  search: "m20 20-4.5-4.5M17 10.5a6.5 6.5 0 1 1-13 0 6.5 6.5 0 0 1 13 0Z",
  download: "M12 4v12m-5-5 5 5 5-5M5 20h14",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  edit: "M4 20h4L19 9l-4-4L4 16v4Z",
  restart: "M4 12a8 8 0 1 1 2.5 5.8M4 20v-5h5",
  scale: "M4 20V9m5.3 11V4m5.4 16v-8M20 20V7",
  logs: "M5 6h14M5 10h9M5 14h14M5 18h7",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  eye: "M2 12s3.5-7 10-7 10 7 10 7-3.5 7-10 7-10-7-10-7Zm13 0a3 3 0 1 1-6 0 3 3 0 0 1 6 0Z",
  alert: "M12 8v5m0 3.5v.1M10.3 4 2.5 18a2 2 0 0 0 1.7 3h15.6a2 2 0 0 0 1.7-3L13.7 4a2 2 0 0 0-3.4 0Z",
  close: "M6 6l12 12M18 6 6 18",
};

export function Icon({ name }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={ICONS[name]} />
    </svg>
  );
}

/** A button that says what it does even where only its icon has room. */
export function Action({ icon, label, onClick, danger, primary, quiet, disabled, autofocus }) {
  const kind = `button${danger ? " danger" : ""}${primary ? " primary" : ""}${quiet ? " quiet" : ""}`;
  return (
    <button
      type="button"
      class={kind}
      onClick={onClick}
      disabled={disabled}
      autofocus={autofocus}
      title={label}
      aria-label={label}
    >
      {icon && <Icon name={icon} />}
      <span>{label}</span>
    </button>
  );
}

export function Status({ word, as }) {
  if (word === undefined || word === null || word === "") return null;
  return <span class={`status ${as ?? mood(word)}`}>{word}</span>;
}

/** Draws again every few seconds, for ages. */
export function useNow(every = 5000) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setNow(Date.now()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}

export function Age({ of }) {
  const now = useNow();
  return of ? (
    <time dateTime={of} title={when(of)}>
      {age(of, now)}
    </time>
  ) : null;
}

const NONE = new Map();

/** A live collection; `null` options are none yet. Returns its state, new after each change. */
export function useLive(options) {
  const key = options && JSON.stringify(options);
  const [shown, setShown] = useState(null);
  const attempt = useRef(0);
  const [again, setAgain] = useState(0);
  useEffect(() => {
    setShown(null);
    if (!key) return undefined;
    const live = new Live(JSON.parse(key), ({ items, columns, state, error, version }) =>
      setShown({ key, items, columns, state, error, version }),
    );
    live.start();
    return () => live.stop();
  }, [key, again]);
  const retry = () => setAgain((attempt.current += 1));
  // What was read for another address must not be drawn for this one.
  const current = shown?.key === key ? shown : null;
  return { items: NONE, state: "loading", version: -1, ...current, retry };
}

export function LiveMark({ state }) {
  const words = {
    loading: "loading",
    live: "live",
    still: "not live: you may not watch these",
    reconnecting: "reconnecting",
    failed: "failed",
  };
  return (
    <span class={`mark ${state}`} role="status" title={words[state]}>
      {words[state]}
    </span>
  );
}

function MissingRight({ missing, message }) {
  const { user, verb, resource, group, namespace } = missing;
  const plural = resource.split("/")[0];
  const full = group ? resource.replace(plural, `${plural}.${group}`) : resource;
  const kind = namespace ? "role" : "clusterrole";
  const scope = namespace ? ` -n ${namespace}` : "";
  const name = `${verb}-${plural}`;
  return (
    <>
      <p>
        You may not <b>{verb}</b> <b>{full}</b>{" "}
        {namespace ? (
          <>
            in namespace <b>{namespace}</b>
          </>
        ) : (
          "in the whole cluster"
        )}
        .
      </p>
      {!namespace && verb === "list" && <p>Choose a namespace above, if you have rights in one.</p>}
      <details>
        <summary>What an administrator can do</summary>
        <pre class="code">
          {`kubectl create ${kind} ${name}${scope} --verb=${verb} --resource=${full}\n`}
          {`kubectl create ${kind}binding ${name}${scope} --${kind}=${name} --user=${user}`}
        </pre>
        <p class="faint">{message}</p>
      </details>
    </>
  );
}

/** What went wrong, and what to do about it. */
export function Problem({ error, onRetry }) {
  if (!error) return null;
  const missing = error.code === 403 && missingRight(error.message);
  return (
    <div class="problem" role="alert">
      <Icon name="alert" />
      <div>
        {missing ? <MissingRight missing={missing} message={error.message} /> : <p>{error.message}</p>}
        {error.causes?.length > 0 && (
          <ul>
            {error.causes.map((cause) => (
              <li>
                {cause.field && <code>{cause.field}</code>} {cause.message}
              </li>
            ))}
          </ul>
        )}
        {onRetry && <Action label="Try again" onClick={onRetry} />}
      </div>
    </div>
  );
}

/** A modal window. The browser keeps the focus inside and closes it with Escape. */
export function Dialog({ title, onClose, children }) {
  const element = useRef(null);
  useLayoutEffect(() => element.current.showModal(), []);
  return (
    <dialog
      ref={element}
      onClose={onClose}
      onClick={(event) => event.target === element.current && element.current.close()}
    >
      <div class="dialog-body">
        <header>
          <h2>{title}</h2>
          <button type="button" class="button quiet" aria-label="Close" onClick={() => element.current.close()}>
            <Icon name="close" />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** Keeps one page's mistake from blanking everything. */
export class Boundary extends Component {
  state = { error: null };

  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }

  render() {
    if (!this.state.error) return this.props.children;
    return <Problem error={new Error(`The dashboard cannot show this: ${this.state.error.message}`)} />;
  }
}

let notify = () => {};

/** Says for a moment that something was done. */
export const toast = (message, bad = false) => notify({ message, bad, id: Math.random() });

export function Toasts() {
  const [shown, setShown] = useState([]);
  useEffect(() => {
    notify = (one) => {
      setShown((all) => [...all, one]);
      setTimeout(() => setShown((all) => all.filter(({ id }) => id !== one.id)), one.bad ? 9000 : 4500);
    };
    return () => (notify = () => {});
  }, []);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {shown.map(({ id, message, bad }) => (
        <div key={id} class={bad ? "toast bad" : "toast"}>
          {message}
        </div>
      ))}
    </div>
  );
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("The browser does not allow copying here", true);
  }
}

export function Empty({ children }) {
  return <p class="empty">{children}</p>;
}

/** Remembers a choice in this browser, where it may. */
export function remembered(name, fallback) {
  try {
    return localStorage.getItem(`mini-dashboard-${name}`) ?? fallback;
  } catch {
    return fallback;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`mini-dashboard-${name}`, value);
  } catch {
    // A choice that is not kept is no harm.
  }
}
