// The Kubernetes API as the page sees it: calls with the user's token, errors, discovery.

import { covers } from "./change.js";

const TOKEN = "mini-dashboard-token";
const AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
export const TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1,application/json";
export const METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const MANAGER = "mini-dashboard";
const TRIES = 6;

/** What the API, or the way to it, refused. `code` is 0 when nobody answered. */
export class ApiError extends Error {
  constructor(code, message, status = {}) {
    super(message);
    this.code = code;
    this.reason = status.reason || "";
    this.causes = status.details?.causes || [];
  }
}

// The token lives in this tab only: no cookie that a request could carry without us, nothing on the server.
let token = sessionStorage.getItem(TOKEN) || "";
let refused = () => {};

export const session = {
  get token() {
    return token;
  },
  set(value) {
    token = value;
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
  },
  /** Called when the API no longer takes the token. */
  onRefused(callback) {
    refused = callback;
  },
  /** Seconds since the epoch at which the token ends; null if it does not say. */
  get expires() {
    try {
      const claims = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
      return JSON.parse(atob(claims)).exp ?? null;
    } catch {
      return null;
    }
  },
};

function query(parameters) {
  const pairs = Object.entries(parameters || {}).filter(
    ([, value]) => value !== undefined && value !== null && value !== "",
  );
  return pairs.length > 0 ? "?" + new URLSearchParams(pairs) : "";
}

const UNREACHED = "the dashboard's server cannot be reached";
const pause = () => new Promise((done) => setTimeout(done, 300));

/**
 * Browsers cut what is under way when the machine's networks change, as they do on the node itself with each pod that
 * starts. What does the same when it is done twice is asked `again`.
 */
async function send(url, options, again) {
  for (let left = again ? TRIES : 0; ; left -= 1) {
    try {
      return await fetch(url, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (left === 0) throw new ApiError(0, UNREACHED);
      await pause();
    }
  }
}

/** A response whose code is a good one. Paths are relative: the page may live below any prefix. */
export async function open(method, path, { parameters, body, type, accept, signal, again } = {}) {
  const headers = { "X-Dashboard-Token": token, Accept: accept || "application/json" };
  if (body !== undefined) headers["Content-Type"] = type || "application/json";
  const sent = token;
  const request = {
    method,
    headers,
    body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
    signal,
    credentials: "same-origin",
    cache: "no-store",
    redirect: "error",
  };
  const response = await send(path + query(parameters), request, again ?? method !== "POST");
  if (response.ok) return response;
  const text = await response.text();
  let status = {};
  try {
    status = JSON.parse(text);
  } catch {
    status = { message: text.slice(0, 300) };
  }
  const error = new ApiError(response.status, status.message || `the server answered ${response.status}`, status);
  if (error.code === 401 && sent === token) refused();
  throw error;
}

/**
 * An answer that is read whole. One that is cut off on its way here is asked `again` too; a refusal says whether it came
 * to a `repeated` request, of which an earlier one may have arrived.
 */
async function exchange(method, path, { again = method !== "POST", ...options } = {}) {
  let repeated = false;
  for (let left = again ? TRIES : 0; ; left -= 1) {
    try {
      const response = await open(method, path, { ...options, again: false });
      return { response, value: await response.json() };
    } catch (error) {
      const cut = error instanceof ApiError ? error.code === 0 : error instanceof TypeError;
      if (!cut) throw Object.assign(error, { repeated });
      if (left === 0) throw new ApiError(0, UNREACHED);
      repeated = true;
      await pause();
    }
  }
}

export const call = async (method, path, options) => (await exchange(method, path, options)).value;
export const get = (path, options) => call("GET", path, options);

/** Writes, and what the API warns about. */
async function write(method, path, { dryRun, parameters, ...options }) {
  const all = { fieldManager: MANAGER, fieldValidation: "Strict", ...parameters, dryRun: dryRun ? "All" : undefined };
  const { response, value } = await exchange(method, path, { ...options, parameters: all });
  const warnings = (response.headers.get("Warning") || "").matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g);
  return { object: value, warnings: [...warnings].map((found) => found[1].replaceAll(/\\(.)/g, "$1")) };
}

/** Milliseconds by which two clocks that tell whole seconds may differ. */
const COARSE = 2000;

/** An object with a name can only be made once: it is tried again, and then found to be there. */
export async function create(path, body, dryRun) {
  const begun = performance.now();
  const name = body.metadata?.name;
  try {
    return await write("POST", path, { body, dryRun, again: dryRun || !!name });
  } catch (error) {
    if (!error.repeated || error.reason !== "AlreadyExists") throw error;
    const { response, value } = await exchange("GET", `${path}/${encodeURIComponent(name)}`);
    // Whether it is ours, by the server's own clock.
    const age = Date.parse(response.headers.get("Date")) - Date.parse(value.metadata.creationTimestamp);
    if (age <= performance.now() - begun + COARSE) return { object: value, warnings: [] };
    throw error;
  }
}

/** The first of two equal replacements makes the second one a conflict. */
export async function replace(path, body, dryRun) {
  try {
    return await write("PUT", path, { body, dryRun });
  } catch (error) {
    if (!error.repeated || error.reason !== "Conflict") throw error;
    const found = await get(path);
    const { status, metadata, ...wanted } = body;
    const { resourceVersion, generation, managedFields, ...meta } = metadata;
    if (covers(found, { ...wanted, metadata: meta })) return { object: found, warnings: [] };
    throw error;
  }
}

export const patch = (path, body) => write("PATCH", path, { body, type: "application/merge-patch+json" });
export async function remove(path, options) {
  try {
    await call("DELETE", path, { body: { apiVersion: "v1", kind: "DeleteOptions", ...options } });
  } catch (error) {
    // It is gone, which is what was wanted.
    if (error.code !== 404) throw error;
  }
}

/** Who the token belongs to. */
export async function whoami() {
  const review = { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" };
  const answer = await call("POST", "apis/authentication.k8s.io/v1/selfsubjectreviews", { body: review, again: true });
  return answer.status?.userInfo || {};
}

let discovery = null;

async function discover() {
  const [core, named] = await Promise.all(["api", "apis"].map((path) => get(path, { accept: AGGREGATED })));
  const kinds = new Map();
  for (const group of [...core.items, ...named.items]) {
    const name = group.metadata?.name || "";
    // The first version that has a kind is the one to use.
    for (const { version, resources } of group.versions) {
      for (const found of resources || []) {
        const key = name ? `${found.resource}.${name}` : found.resource;
        if (kinds.has(key) || !found.verbs.includes("list")) continue;
        kinds.set(key, {
          key,
          group: name,
          version,
          apiVersion: name ? `${name}/${version}` : version,
          plural: found.resource,
          kind: found.responseKind.kind,
          namespaced: found.scope === "Namespaced",
          verbs: found.verbs,
          shortNames: found.shortNames || [],
          subresources: (found.subresources || []).map((sub) => sub.subresource),
        });
      }
    }
  }
  return kinds;
}

/** All kinds that can be listed, by `plural.group`. */
export function kinds(again = false) {
  if (!discovery || again) {
    discovery = discover();
    discovery.catch(() => (discovery = null));
  }
  return discovery;
}

export function forgetKinds() {
  discovery = null;
}

/** The kind with this key; looks again if it is new. */
export async function kindOf(key) {
  return (await kinds()).get(key) || (await kinds(true)).get(key) || null;
}

/** The kind of an object that says its apiVersion and kind. */
export async function kindFor(apiVersion, name) {
  const group = (apiVersion || "").includes("/") ? apiVersion.split("/")[0] : "";
  const find = (all) => [...all.values()].find((kind) => kind.kind === name && kind.group === group);
  return find(await kinds()) || find(await kinds(true)) || null;
}

/** Path of a kind's objects, or of one of them. */
export function pathOf(kind, namespace, name, subresource) {
  const root = kind.group ? `apis/${kind.group}/${kind.version}` : `api/${kind.version}`;
  const scope = kind.namespaced && namespace ? `/namespaces/${encodeURIComponent(namespace)}` : "";
  const tail = (name ? `/${encodeURIComponent(name)}` : "") + (subresource ? `/${subresource}` : "");
  return `${root}${scope}/${kind.plural}${tail}`;
}

export const CORE = (plural, namespaced = true) => ({ key: plural, group: "", version: "v1", plural, namespaced });
