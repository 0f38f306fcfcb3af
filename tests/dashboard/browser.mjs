// The dashboard in a real browser: `node browser.mjs`, with the environment
//   URL         where the page is
//   TOKEN       a token that may do everything
//   NAMESPACE   a namespace with the objects of objects.yaml, their pods running
//   VIEWER      a token that may look at this namespace and no other; left out: only what tells one way to the page from
//               another is tried
//   SHOTS       a folder for pictures; left out: none are made

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { launch, tab } from "./chromium.mjs";

const { URL: url, TOKEN: token, NAMESPACE: namespace, VIEWER: viewer, SHOTS: shots } = process.env;
const TABLES = {
  pods: "web-",
  "deployments.apps": "web",
  "replicasets.apps": "web-",
  "statefulsets.apps": "",
  "daemonsets.apps": "",
  replicationcontrollers: "old",
  "jobs.batch": "",
  "cronjobs.batch": "",
  services: "web",
  "endpointslices.discovery.k8s.io": "web-",
  "ingresses.networking.k8s.io": "web",
  configmaps: "settings",
  secrets: "credentials",
  persistentvolumeclaims: "data",
  persistentvolumes: "",
  "storageclasses.storage.k8s.io": "",
  nodes: "Ready",
  namespaces: namespace,
  events: "Started",
  // By discovery alone.
  serviceaccounts: "default",
  "clusterroles.rbac.authorization.k8s.io": "cluster-admin",
};

const browser = await launch();
const page = await tab(browser);
let step = "";

async function shot(name) {
  if (shots) await page.shot(`${shots}/${name}.png`);
}

const show = (hash) => page.evaluate(`location.hash = ${JSON.stringify(hash)}`);
const list = (kind) => show(`#/list/${kind}`);
const object = (kind, name, view = "") => show(`#/object/${kind}/${namespace}/${name}${view && `/${view}`}`);
/** A call past the page, as somebody else would make it; again where the browser cuts it off for a change of networks. */
const elsewhere = (method, path, body, type = "application/json") =>
  page.evaluate(`(async () => {
    for (let left = 5; ; left -= 1) {
      try {
        const answer = await fetch(${JSON.stringify(path)}, {
          method: ${JSON.stringify(method)},
          headers: {"X-Dashboard-Token": sessionStorage.getItem("mini-dashboard-token"), "Content-Type": ${JSON.stringify(type)}},
          body: ${body ? JSON.stringify(JSON.stringify(body)) : "undefined"},
        });
        return await answer.json();
      } catch (error) {
        if (left === 0) throw error;
        await new Promise((done) => setTimeout(done, 300));
      }
    }
  })()`);
const text = () => page.evaluate("document.querySelector('textarea').value");
const count = (selector) => page.evaluate(`document.querySelectorAll(${JSON.stringify(selector)}).length`);

async function logIn(with_) {
  await page.fill("#token", with_);
  await page.click("button", "Log in");
}

async function choose(name) {
  await page.until("document.querySelector('.namespace select option:nth-child(2)')", "namespaces to choose from");
  await page.fill(".namespace select", name);
}

const steps = {
  async "log in"() {
    await page.goto(url);
    await page.sees("Log in");
    await shot("login");
    await logIn("nonsense");
    await page.sees("not valid");
    await shot("login-refused");
    await logIn(`token:      ${token}\n`);
    await page.sees("Overview", "h1");
    assert.equal(await page.evaluate("document.cookie"), "");
    assert.equal(await page.evaluate("Object.keys(localStorage).some((key) => key.includes('token'))"), false);
    await page.goto(url);
    await page.sees("Overview", "h1");
  },

  async overview() {
    await page.sees("CPU requested", "main");
    await page.sees("of 110", "main");
    await choose(namespace);
    await page.sees(`namespace ${namespace}`, "main");
    await shot("overview");
  },

  async "a log follows"() {
    await list("pods");
    await page.sees("web-", "tbody");
    await page.until(
      "[...document.querySelectorAll('tbody tr')].some((row) => row.innerText.includes('web-') && row.innerText.includes('Running'))",
    );
    await page.evaluate(
      "[...document.querySelectorAll('td[data-column=Name] a')].find((link) => link.innerText.startsWith('web-')).click()",
    );
    await page.sees("Containers", "main");
    await shot("pod");
    await page.click(".tabs a", "Logs");
    await page.sees("tick", ".log");
    const lines = await page.evaluate("document.querySelector('.log').innerText.split('\\n').length");
    await page.until(`document.querySelector('.log').innerText.split('\\n').length > ${lines + 1}`, "further lines");
    await page.sees("following", "main");
    await page.fill("main input[type=search]", "no such line");
    await page.sees("0 of", "main");
    await page.fill("main input[type=search]", "");
    await page.click("label.check", "Timestamps");
    await page.until("/^\\d{4}-\\d\\d-\\d\\dT/.test(document.querySelector('.log').innerText)", "timestamps");
    await shot("logs");
    await page.fill(".logs select", "second");
    await page.sees("the second container", ".log");
  },

  async "every table"() {
    for (const [kind, words] of Object.entries(TABLES)) {
      await list(kind);
      await page.until("document.querySelector('main .mark.live')", `${kind} to be live`);
      await page.sees(words, "main");
      assert.equal(await count(".problem"), 0, kind);
      if (["pods", "events", "services"].includes(kind)) await shot(`table-${kind}`);
    }
    await show("#/kinds");
    await page.sees("rbac.authorization.k8s.io", "main");
    await shot("kinds");
  },

  async "tables live, filter and sort"() {
    await list("configmaps");
    await page.sees("settings", "tbody");
    const path = `api/v1/namespaces/${namespace}/configmaps`;
    await elsewhere("POST", path, { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "appears" } });
    await page.sees("appears", "tbody");
    await page.evaluate("document.activeElement.blur()");
    await page.key("/", "Slash", "/");
    assert.equal(await page.evaluate("document.activeElement.type"), "search");
    await page.fill("main input[type=search]", "appe");
    await page.seesNot("settings", "tbody");
    await elsewhere("DELETE", `${path}/appears`);
    await page.sees("hidden by the filter", "main");
    await page.fill("main input[type=search]", "");
    await page.click("th button", "Name");
    await page.click("th button", "Name");
    await page.until("document.querySelector('tbody td').innerText === 'settings'", "descending order");
  },

  async "details and related objects"() {
    await object("deployments.apps", "web");
    await page.sees("2 ready of 2 wanted", "main");
    for (const words of ["Conditions", "Replica sets", "ScalingReplicaSet", "uses config map"])
      await page.sees(words, "main");
    await shot("deployment");
    await object("secrets", "credentials");
    await page.sees("password", "main");
    await page.seesNot("s3cret", "main");
    await page.click(".entry button", "Show");
    await page.sees("s3cret", "main");
    await object("secrets", "credentials", "yaml");
    await page.sees("••••", ".yaml");
    await page.seesNot("czNjcmV0", ".yaml");
    await object("ingresses.networking.k8s.io", "web");
    await page.sees("shop.example", "main");
    await shot("ingress");
    await show("#/object/nodes/-/nothing");
    await page.sees("not found", ".problem");
  },

  async "an edit: the server's objections, a conflict, the change"() {
    await object("deployments.apps", "web", "yaml");
    await page.click("button", "Edit");
    const before = await text();
    await page.fill("textarea", before.replace("replicas: 2", "replicas: ["));
    await page.click("button", "Review changes");
    await page.sees("line ", ".problem");
    await page.fill("textarea", before.replace("replicas: 2", "replicas: -1"));
    await page.click("button", "Review changes");
    await page.sees("spec.replicas", ".problem li");
    await shot("edit-refused");
    await page.fill("textarea", before.replace("revisionHistoryLimit: 10", "revisionHistoryLimit: 7"));
    await elsewhere(
      "PATCH",
      `apis/apps/v1/namespaces/${namespace}/deployments/web`,
      { metadata: { labels: { other: "hand" } } },
      "application/merge-patch+json",
    );
    await page.click("button", "Review changes");
    await page.sees("the object has been modified", ".problem");
    await page.click("button", "Put my changes onto the newest version");
    await page.until("document.querySelector('textarea').value.includes('other: hand')", "the other's change");
    await page.click("button", "Review changes");
    await page.sees("revisionHistoryLimit: 7", ".difference");
    await shot("edit-review");
    const path = `apis/apps/v1/namespaces/${namespace}/deployments/web`;
    assert.equal((await elsewhere("GET", path)).spec.revisionHistoryLimit, 10);
    await page.click("button", "Apply");
    await page.sees("Applied", ".toasts");
    const after = await elsewhere("GET", path);
    assert.deepEqual([after.spec.revisionHistoryLimit, after.metadata.labels.other], [7, "hand"]);
  },

  async "scale and restart"() {
    await object("deployments.apps", "web");
    await page.click("button", "Scale");
    await page.fill("dialog input", "3");
    await shot("scale");
    await page.click("dialog button[type=submit]");
    await page.sees("3 ready of 3 wanted", "main");
    await page.click("button", "Restart");
    await page.click("dialog button[type=submit]");
    await page.until(
      "document.querySelector('main').innerText.includes('deployment.kubernetes.io/revision\\n2')",
      "a second revision",
    );
  },

  async "create and delete"() {
    await show("#/new");
    await page.fill(
      "textarea",
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: made}\ndata: {mode: "0644"}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: made}\nstringDate: {}\n',
    );
    await page.click("button", "Check only");
    await page.sees("1 object would be created, 1 refused", "main");
    await page.sees('unknown field "stringDate"', "main");
    await shot("create-check");
    await page.fill("textarea", (await text()).replace("stringDate", "stringData"));
    await page.click("button", "Create objects");
    await page.sees("2 objects created", "main");
    await object("configmaps", "made");
    await page.sees("0644", "main");
    await page.click("button", "Delete");
    await page.sees("cannot be undone", "dialog[open]");
    await shot("delete");
    await page.key("Escape");
    await page.until("!document.querySelector('dialog')", "the dialog to close");
    await page.click("button", "Delete");
    await page.click("dialog button[type=submit]");
    await page.sees("has been deleted", "main");
  },

  async "dark, and as small as a phone"() {
    const background = () => page.evaluate("getComputedStyle(document.body).backgroundColor");
    const light = await background();
    await page.scheme("dark");
    assert.notEqual(await background(), light);
    await show("#/");
    await page.sees("CPU for", "main");
    await shot("overview-dark");
    await object("deployments.apps", "web", "yaml");
    await page.sees("apiVersion", ".yaml");
    await shot("yaml-dark");
    await page.click("button", "Light colours");
    assert.equal(await background(), light);
    await page.click("button", "Dark colours");
    await page.scheme("light");
    await page.size(390, 800, true);
    for (const hash of ["#/", "#/list/pods", `#/object/deployments.apps/${namespace}/web`, "#/new"]) {
      await show(hash);
      await page.until("!document.querySelector('main').innerText.includes('Loading')", hash);
      assert.ok(await page.evaluate("document.querySelector('main').scrollWidth <= innerWidth"), `${hash} is too wide`);
      await shot(`phone${hash.replaceAll(/[^a-z]+/g, "-")}`);
    }
    await page.click("button", "Menu");
    await page.click(".side a", "Services");
    await page.sees("Services", "h1");
    await page.size(1280, 860);
  },

  async "who may do less is told what is missing"() {
    await page.click("button", "Account");
    await page.sees("kubernetes-dashboard-admin", ".menu");
    await page.click("button", "Log out");
    await page.sees("Log in");
    assert.equal(await page.evaluate("sessionStorage.getItem('mini-dashboard-token')"), null);
    await page.evaluate("sessionStorage.clear()");
    await page.goto(url.replace(/\/?$/, "/?again"));
    await logIn(viewer);
    await list("pods");
    await page.sees("You may not list pods in the whole cluster", ".problem");
    await shot("forbidden");
    await page.fill(".namespace input", namespace);
    await page.sees("web-", "tbody");
    await object("deployments.apps", "web");
    await page.click("button", "Scale");
    await page.fill("dialog input", "1");
    await page.click("dialog button[type=submit]");
    await page.sees("You may not patch deployments.apps/scale", "dialog .problem");
    await list("secrets");
    await page.sees("You may not list secrets", ".problem");
    await page.evaluate("sessionStorage.setItem('mini-dashboard-token', 'old')");
    await page.goto(url.replace(/\/?$/, "/?expired"));
    await page.sees("no longer valid", ".login");
  },
};

try {
  if (shots) await mkdir(shots, { recursive: true });
  const wanted = viewer ? Object.keys(steps) : ["log in", "overview", "a log follows"];
  for (step of wanted) {
    const begun = Date.now();
    await steps[step]();
    console.log(`${step}: ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  }
  step = "at the end";
  assert.deepEqual(page.complaints, [], "the browser complains");
} catch (error) {
  await shot("failed").catch(() => {});
  console.error(`${step}: ${error.stack}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
