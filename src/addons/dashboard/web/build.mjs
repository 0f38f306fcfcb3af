// Builds the page: `node build.mjs OUT`. With --check, builds aside and says which committed files differ.
import { build } from "esbuild";
import { copyFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const FILES = ["index.html", "icon.svg", "app.js", "app.css"];

async function make(out) {
  await build({
    absWorkingDir: here,
    entryPoints: { app: "src/main.jsx" },
    outdir: out,
    bundle: true,
    minify: true,
    format: "esm",
    target: ["es2022"],
    charset: "utf8",
    legalComments: "inline",
    jsx: "automatic",
    jsxImportSource: "preact",
    logLevel: "warning",
  });
  for (const file of ["index.html", "icon.svg"]) await copyFile(join(here, "src", file), join(out, file));
}

const check = process.argv[2] === "--check";
const dist = process.argv[check ? 3 : 2];
if (!check) {
  await make(dist);
} else {
  const aside = await mkdtemp(join(tmpdir(), "mini-dashboard-"));
  try {
    await make(aside);
    const different = [];
    for (const file of FILES) {
      const [fresh, committed] = await Promise.all(
        [aside, dist].map((at) => readFile(join(at, file)).catch(() => null)),
      );
      if (!committed || !fresh.equals(committed)) different.push(file);
    }
    if (different.length > 0) {
      console.error(`the dashboard's ${different.join(", ")} do not match their source; run: make dashboard`);
      process.exitCode = 1;
    }
  } finally {
    await rm(aside, { recursive: true });
  }
}
