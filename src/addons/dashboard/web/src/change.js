// What changed: lines for eyes, and a merge of one's own changes onto another version.

/** Lines of both texts: `same`, `gone` or `new`. Long runs of the same are cut to `around` lines. */
export function diff(before, after, around = 3) {
  const [a, b] = [before.split("\n"), after.split("\n")];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const [x, y] = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  const all = [
    ...a.slice(0, start).map((text) => ["same", text]),
    ...middle(x, y),
    ...a.slice(a.length - end).map((text) => ["same", text]),
  ];
  const near = all.map(() => false);
  all.forEach(([kind], at) => {
    if (kind !== "same") near.fill(true, Math.max(0, at - around), at + around + 1);
  });
  const shown = [];
  all.forEach((line, at) => {
    if (near[at]) shown.push(line);
    else if (shown.at(-1)?.[0] !== "cut") shown.push(["cut", "⋯"]);
  });
  return shown;
}

/** The longest common subsequence, by table; texts that are too different are shown as replaced. */
function middle(x, y) {
  if (x.length * y.length > 4_000_000) return [...x.map((text) => ["gone", text]), ...y.map((text) => ["new", text])];
  const width = y.length + 1;
  const table = new Uint16Array((x.length + 1) * width);
  for (let i = x.length - 1; i >= 0; i -= 1) {
    for (let j = y.length - 1; j >= 0; j -= 1) {
      table[i * width + j] =
        x[i] === y[j]
          ? table[(i + 1) * width + j + 1] + 1
          : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  const lines = [];
  let [i, j] = [0, 0];
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) {
      lines.push(["same", x[i]]);
      i += 1;
      j += 1;
    } else if (j >= y.length || (i < x.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) {
      lines.push(["gone", x[i]]);
      i += 1;
    } else {
      lines.push(["new", y[j]]);
      j += 1;
    }
  }
  return lines;
}

/** Whether `found` holds all of `wanted`; it may hold more, where the server adds to it. */
export function covers(found, wanted) {
  if (Array.isArray(wanted)) {
    return Array.isArray(found) && found.length === wanted.length && wanted.every((part, at) => covers(found[at], part));
  }
  if (!isObject(wanted)) return found === wanted;
  return isObject(found) && Object.keys(wanted).every((key) => covers(found[key], wanted[key]));
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** `theirs` with the changes that lead from `base` to `mine`. Lists are taken whole. */
export function rebase(base, mine, theirs) {
  if (!isObject(base) || !isObject(mine) || !isObject(theirs)) return same(base, mine) ? theirs : mine;
  const merged = {};
  for (const key of new Set([...Object.keys(theirs), ...Object.keys(mine)])) {
    const inMine = key in mine;
    if (!inMine && key in base) continue;
    if (!inMine || (key in base && same(base[key], mine[key]))) {
      if (key in theirs) merged[key] = theirs[key];
    } else {
      merged[key] = key in theirs ? rebase(base[key], mine[key], theirs[key]) : mine[key];
    }
  }
  return merged;
}
