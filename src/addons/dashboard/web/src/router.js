// The address after `#`: `#/`, `#/list/KIND`, `#/object/KIND/NAMESPACE/NAME/TAB`, `#/kinds`, `#/new`.

import { useEffect, useState } from "preact/hooks";

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function parse(hash) {
  const [path, search] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map(decode);
  const parameters = new URLSearchParams(search || "");
  const [page, kind, namespace, name, tab] = parts;
  return {
    page: page || "overview",
    kind,
    namespace: namespace === "-" ? "" : namespace,
    name,
    tab: tab || "",
    parameters,
  };
}

export function useRoute() {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => {
      setRoute(parse(location.hash));
      document.querySelector("main")?.scrollTo(0, 0);
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

const enc = encodeURIComponent;
export const listUrl = (key, filter) => `#/list/${enc(key)}${filter ? `?filter=${enc(filter)}` : ""}`;
export const objectUrl = (key, namespace, name, tab) =>
  `#/object/${enc(key)}/${enc(namespace || "-")}/${enc(name)}${tab ? `/${tab}` : ""}`;
export const go = (url) => {
  location.hash = url;
};
