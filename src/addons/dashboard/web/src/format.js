// Words and numbers as people read them.

/** Time since `then` as kubectl prints it: `5s`, `3m20s`, `5h`, `12d`. */
export function age(then, now = Date.now()) {
  if (!then) return "";
  const seconds = Math.max(0, Math.floor((now - new Date(then)) / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  const two = (big, bigUnit, small, smallUnit) => (small ? `${big}${bigUnit}${small}${smallUnit}` : `${big}${bigUnit}`);
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return two(minutes, "m", seconds % 60, "s");
  if (hours < 3) return `${minutes}m`;
  if (hours < 8) return two(hours, "h", minutes % 60, "m");
  if (hours < 48) return `${hours}h`;
  if (days < 8) return two(days, "d", hours % 24, "h");
  if (days < 365 * 2) return `${days}d`;
  return two(Math.floor(days / 365), "y", days % 365, "d");
}

const SCALE = { n: 1e-9, u: 1e-6, m: 1e-3, "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 };
const BINARY = { Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60 };

/** A quantity such as `250m` or `1Gi` as a number. */
export function quantity(text) {
  const found = /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)$/.exec(String(text ?? "0"));
  if (!found) return 0;
  return Number(found[1]) * (SCALE[found[2]] ?? BINARY[found[2]] ?? 1);
}

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) {
    number /= 1024;
    at += 1;
  }
  return `${number >= 100 || at === 0 ? Math.round(number) : number.toFixed(1)} ${units[at]}`;
}

export const cores = (number) =>
  number < 1 ? `${Math.round(number * 1000)}m` : String(Math.round(number * 100) / 100);

export const when = (time) => (time ? new Date(time).toLocaleString() : "");

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

const GOOD = /^(running|ready|active|bound|available|complete|completed|succeeded|true|healthy|approved|established)$/i;
const WAITING =
  /^(pending|containercreating|podinitializing|terminating|progressing|waiting|init:\d+\/\d+|released|schedulinggated|unknown|suspended|lost)$/i;
const BAD =
  /(error|backoff|failed|failure|evicted|oomkilled|invalid|notready|denied|errimage|notfound|unschedulable|exceeded)/i;

/** How a status word is meant: `good`, `waiting`, `bad` or nothing. */
export function mood(text) {
  const word = String(text || "");
  if (GOOD.test(word)) return "good";
  if (BAD.test(word)) return "bad";
  if (WAITING.test(word) || word.includes(",SchedulingDisabled")) return "waiting";
  return "";
}

/** How `1/2` is meant. */
export function fraction(text) {
  const found = /^(\d+)\/(\d+)$/.exec(String(text));
  if (!found) return "";
  return found[1] === found[2] ? "" : "waiting";
}

/** What a 403 says is missing, in parts; null if it is said in other words. */
export function missingRight(message) {
  const found =
    /User "(.*?)" cannot (\S+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)"| at the cluster scope)?/.exec(
      message,
    );
  return found && { user: found[1], verb: found[2], resource: found[3], group: found[4], namespace: found[5] || "" };
}

/** The token in what was pasted: perhaps a line of `kubectl describe`, perhaps wrapped by a terminal. */
export const cleanToken = (text) => text.replace(/^\s*(token:|bearer\s)/i, "").replace(/\s+/g, "");
