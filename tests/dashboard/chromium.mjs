// Drives Debian's Chromium over its DevTools pipe: no package, no port, no driver program.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PATIENCE = 20_000;

export async function launch({ width = 1280, height = 860 } = {}) {
  const profile = await mkdtemp(join(tmpdir(), "mini-dashboard-chromium-"));
  const flags = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
    "--ignore-certificate-errors",
    "--remote-debugging-pipe",
    // HOST_RULES, such as `MAP a.test 192.0.2.1`: names that only this browser knows.
    ...(process.env.HOST_RULES ? [`--host-resolver-rules=${process.env.HOST_RULES}`] : []),
    `--user-data-dir=${profile}`,
    `--window-size=${width},${height}`,
    "about:blank",
  ];
  const child = spawn(process.env.CHROMIUM || "chromium", flags, {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
  });
  const [, , , input, output] = child.stdio;
  const waiting = new Map();
  const listeners = new Set();
  let rest = Buffer.alloc(0);
  let last = 0;
  output.on("data", (data) => {
    rest = Buffer.concat([rest, data]);
    for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
      const message = JSON.parse(rest.subarray(0, end));
      rest = rest.subarray(end + 1);
      const answered = waiting.get(message.id);
      waiting.delete(message.id);
      if (!answered) for (const listener of listeners) listener(message);
      else if (message.error) answered.reject(new Error(message.error.message));
      else answered.resolve(message.result);
    }
  });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  ended.then(() => waiting.forEach(({ reject }) => reject(new Error("chromium ended"))));
  const send = (method, params = {}, sessionId) =>
    new Promise((resolve, reject) => {
      last += 1;
      waiting.set(last, { resolve, reject });
      input.write(`${JSON.stringify({ id: last, method, params, sessionId })}\0`);
    });
  const close = async () => {
    await send("Browser.close").catch(() => {});
    await ended;
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { send, listeners, close, size: { width, height } };
}

/** A new tab, and what a person does in it. */
export async function tab(browser) {
  const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
  const send = (method, params) => browser.send(method, params, sessionId);
  const complaints = [];
  browser.listeners.add(({ sessionId: of, method, params }) => {
    if (of !== sessionId) return;
    if (method === "Runtime.exceptionThrown")
      complaints.push(params.exceptionDetails.exception?.description || params.exceptionDetails.text);
    // Refused calls are part of the test; broken content rules and scripts are not.
    if (method === "Log.entryAdded" && params.entry.level === "error" && params.entry.source !== "network")
      complaints.push(params.entry.text);
  });
  for (const domain of ["Page", "Runtime", "Log"]) await send(`${domain}.enable`);
  const size = (width, height, mobile = false) =>
    send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile });
  await size(browser.size.width, browser.size.height);

  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
      userGesture: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description || exceptionDetails.text);
    return result.value;
  };
  /** Waits until an expression is true. */
  const until = async (expression, what = expression) => {
    const begun = Date.now();
    while (!(await evaluate(expression).catch(() => false))) {
      if (Date.now() - begun > PATIENCE) {
        throw new Error(
          `waited in vain for ${what}; the page says:\n${await evaluate("document.body.innerText").catch(() => "")}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  };
  const text = JSON.stringify;
  const page = {
    send,
    complaints,
    evaluate,
    until,
    size,
    /** Opens a page; again where the browser cuts it, or what belongs to it, off for a change of networks. */
    goto: async (url) => {
      const drawn = () => evaluate("document.querySelector('#app')?.childElementCount > 0").catch(() => false);
      const begun = Date.now();
      while (Date.now() - begun < 4 * PATIENCE) {
        await send("Page.navigate", { url });
        for (const asked = Date.now(); Date.now() - asked < 5000; ) {
          if (await drawn()) return;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      }
      throw new Error(`${url} does not load; the page says:\n${await evaluate("document.documentElement.outerHTML")}`);
    },
    /** Waits until the page shows a text, or no longer does. */
    sees: (words, where = "body") =>
      until(`document.querySelector(${text(where)})?.innerText.includes(${text(words)})`, `“${words}” in ${where}`),
    seesNot: (words, where = "body") =>
      until(`!document.querySelector(${text(where)})?.innerText.includes(${text(words)})`, `“${words}” to go away`),
    /** Clicks what a selector finds or, with words, the first such element that says exactly them. */
    click: async (selector, words) => {
      const find = words
        ? `[...document.querySelectorAll(${text(selector)})].find((e) => e.innerText.trim() === ${text(words)} || e.ariaLabel === ${text(words)})`
        : `document.querySelector(${text(selector)})`;
      await until(`${find} && !${find}.disabled`, `${selector} ${words || ""}`);
      await evaluate(`${find}.scrollIntoView({block: "nearest"}), ${find}.click()`);
    },
    /** Replaces what a field holds, as typing does. */
    fill: async (selector, value) => {
      await until(`document.querySelector(${text(selector)})`, selector);
      await evaluate(`{
        const field = document.querySelector(${text(selector)});
        const prototype = Object.getPrototypeOf(field);
        Object.getOwnPropertyDescriptor(prototype, "value").set.call(field, ${text(value)});
        field.dispatchEvent(new Event("input", { bubbles: true }));
        field.dispatchEvent(new Event("change", { bubbles: true }));
      }`);
    },
    key: async (key, code = key, text) => {
      await send("Input.dispatchKeyEvent", {
        type: "keyDown",
        key,
        code,
        text,
        windowsVirtualKeyCode: { Tab: 9, Enter: 13, Escape: 27 }[key],
      });
      await send("Input.dispatchKeyEvent", { type: "keyUp", key, code });
    },
    scheme: (value) => send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] }),
    shot: async (file) => {
      await evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
      const { data } = await send("Page.captureScreenshot", { format: "png" });
      await writeFile(file, Buffer.from(data, "base64"));
    },
    close: () => browser.send("Target.closeTarget", { targetId }),
  };
  return page;
}
