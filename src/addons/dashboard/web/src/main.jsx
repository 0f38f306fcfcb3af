// The frame: log-in, side bar, top bar, and the page that the address names.

import "./app.css";
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { METADATA_LIST, forgetKinds, get, session, whoami } from "./api.js";
import { Create } from "./create.jsx";
import { age } from "./format.js";
import { Kinds } from "./kinds.jsx";
import { ListPage } from "./list.jsx";
import { Login } from "./login.jsx";
import { GROUPS } from "./navigation.js";
import { ObjectPage } from "./object.jsx";
import { Overview } from "./overview.jsx";
import { listUrl, useRoute } from "./router.js";
import { Action, Boundary, Icon, Toasts, remember, remembered } from "./ui.jsx";

const NAMESPACE = "mini-dashboard-namespace";

function applyTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

const isDark = (theme) => (theme === "system" ? matchMedia("(prefers-color-scheme: dark)").matches : theme === "dark");

function ThemeSwitch() {
  const [theme, setTheme] = useState(remembered("theme", "system"));
  const dark = isDark(theme);
  const [, redraw] = useState(0);
  useEffect(() => {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => redraw(Math.random());
    system.addEventListener("change", changed);
    return () => system.removeEventListener("change", changed);
  }, []);
  const flip = () => {
    const next = dark ? "light" : "dark";
    remember("theme", next);
    applyTheme(next);
    setTheme(next);
  };
  return <Action quiet icon={dark ? "sun" : "moon"} label={dark ? "Light colours" : "Dark colours"} onClick={flip} />;
}

/** Which namespace is looked at; empty is all. Who may not list them types one. */
function NamespaceChooser({ value, onChange }) {
  const [names, setNames] = useState([]);
  const [refused, setRefused] = useState(false);
  const load = () =>
    get("api/v1/namespaces", { accept: METADATA_LIST }).then(
      (list) => setNames(list.items.map((item) => item.metadata.name)),
      () => setRefused(true),
    );
  useEffect(() => void load(), []);
  if (refused) {
    return (
      <label class="namespace">
        <span>Namespace</span>
        <input value={value} placeholder="all" onChange={(event) => onChange(event.target.value.trim())} />
      </label>
    );
  }
  const all = value && !names.includes(value) ? [value, ...names] : names;
  return (
    <label class="namespace">
      <span>Namespace</span>
      <select value={value} onFocus={load} onChange={(event) => onChange(event.target.value)}>
        <option value="">All namespaces</option>
        {all.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

function Account({ user, onLeave }) {
  const [open, setOpen] = useState(false);
  const box = useRef(null);
  useEffect(() => {
    if (!open) return undefined;
    const away = (event) => {
      if (event.key === "Escape" || (event.type === "pointerdown" && !box.current.contains(event.target)))
        setOpen(false);
    };
    addEventListener("pointerdown", away);
    addEventListener("keydown", away);
    return () => {
      removeEventListener("pointerdown", away);
      removeEventListener("keydown", away);
    };
  }, [open]);
  const expires = session.expires;
  return (
    <div class="account" ref={box}>
      <button
        type="button"
        class="button quiet"
        aria-expanded={open}
        aria-label="Account"
        onClick={() => setOpen(!open)}
      >
        <Icon name="user" />
      </button>
      {open && (
        <div class="menu">
          <p class="faint">Logged in as</p>
          <p class="break">{user.username || "unknown"}</p>
          {expires && <p class="faint">The token ends in {age(Date.now(), expires * 1000)}.</p>}
          <Action label="Log out" onClick={onLeave} />
        </div>
      )}
    </div>
  );
}

function SideBar({ route, open, onClose }) {
  const link = (href, label, current) => (
    <a href={href} aria-current={current ? "page" : undefined} onClick={onClose}>
      {label}
    </a>
  );
  return (
    <nav class={open ? "side open" : "side"} aria-label="Kinds">
      {link("#/", "Overview", route.page === "overview")}
      {GROUPS.map((group) => (
        <div key={group.title}>
          <h2>{group.title}</h2>
          {group.kinds.map(([key, title]) => link(listUrl(key), title, route.kind === key))}
        </div>
      ))}
      <h2>More</h2>
      {link("#/kinds", "All kinds", route.page === "kinds")}
    </nav>
  );
}

function Page({ route, namespace }) {
  switch (route.page) {
    case "overview":
      return <Overview namespace={namespace} />;
    case "list":
      return (
        <ListPage
          key={route.kind}
          kindKey={route.kind}
          namespace={namespace}
          filter={route.parameters.get("filter") || ""}
        />
      );
    case "object":
      return (
        <ObjectPage
          key={`${route.kind}/${route.namespace}/${route.name}`}
          kindKey={route.kind}
          namespace={route.namespace}
          name={route.name}
          tab={route.tab}
          parameters={route.parameters}
        />
      );
    case "kinds":
      return <Kinds />;
    case "new":
      return <Create namespace={namespace} />;
    default:
      return <p class="empty">There is no such page.</p>;
  }
}

function Frame({ user, onLeave }) {
  const route = useRoute();
  const [namespace, setNamespace] = useState(sessionStorage.getItem(NAMESPACE) || "");
  const [menu, setMenu] = useState(false);
  useEffect(() => {
    const find = (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select"))
        return;
      const field = document.querySelector("main input[type=search]");
      if (field) {
        event.preventDefault();
        field.focus();
      }
    };
    addEventListener("keydown", find);
    return () => removeEventListener("keydown", find);
  }, []);
  const choose = (name) => {
    sessionStorage.setItem(NAMESPACE, name);
    setNamespace(name);
  };
  return (
    <div class="frame">
      <header class="top">
        <button
          type="button"
          class="button quiet only-narrow"
          aria-label="Menu"
          aria-expanded={menu}
          onClick={() => setMenu(!menu)}
        >
          <Icon name="menu" />
        </button>
        <a class="brand" href="#/" aria-label="Overview">
          <img src="icon.svg" alt="" width="26" height="26" /> <b>mini</b>
        </a>
        <NamespaceChooser value={namespace} onChange={choose} />
        <span class="spring" />
        <a class="button" href="#/new" title="Create" aria-label="Create">
          <Icon name="plus" />
          <span>Create</span>
        </a>
        <ThemeSwitch />
        <Account user={user} onLeave={onLeave} />
      </header>
      <SideBar route={route} open={menu} onClose={() => setMenu(false)} />
      {menu && <div class="shade" onClick={() => setMenu(false)} />}
      <main tabIndex={-1}>
        <Boundary key={[route.page, route.kind, route.namespace, route.name].join("/")}>
          <Page route={route} namespace={namespace} />
        </Boundary>
      </main>
      <Toasts />
    </div>
  );
}

function App() {
  const [user, setUser] = useState(null);
  const [state, setState] = useState(session.token ? "asking" : "out");
  const [message, setMessage] = useState("");
  const leave = (why) => {
    session.set("");
    forgetKinds();
    setUser(null);
    setMessage(why);
    setState("out");
  };
  const enter = (who) => {
    session.onRefused(() => leave("The token is no longer valid. Log in again."));
    setUser(who);
    setState("in");
  };
  useEffect(() => {
    if (state !== "asking") return;
    whoami().then(enter, (error) =>
      leave(error.code === 401 ? "The token is no longer valid. Log in again." : error.message),
    );
  }, []);
  if (state === "asking") return null;
  if (state === "out") return <Login message={message} onDone={enter} />;
  return <Frame user={user} onLeave={() => leave("")} />;
}

applyTheme(remembered("theme", "system"));
render(<App />, document.getElementById("app"));
