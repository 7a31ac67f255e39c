// Does what people do in the console, in Chromium. `tests/integration/console.rs` runs it:
//
//     node console.mjs URL TOKEN DIRECTORY
//
// Screenshots are written to DIRECTORY. NODE_MODULES names the folder with the packages.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_MODULES, "x"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [url, token, directory] = process.argv.slice(2);
const path = (page, query) => `${url}${page}?${new URLSearchParams(query)}`;
const name = { agent: "bot", name: "memory" };
const pages = {
  agents: `${url}/`,
  search: path("/", { q: "bot" }),
  agent: path("/agent", { agent: "bot" }),
  name: path("/name", name),
  tree: path("/version", { ...name, version: 2 }),
  hex: path("/version", { ...name, version: 2, view: "hex" }),
  diff: path("/diff", { ...name, from: 1, to: 2 }),
  session: path("/agent", { agent: "bot", session: "monday" }),
  text: path("/version", { ...name, version: 2, view: "text" }),
  hostile: path("/name", { agent: "bot", name: "<script>alert(1)</script>" }),
  health: path("/health", { check: "1" }),
  error: path("/name", { agent: "bot", name: "none" }),
};

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--disable-dev-shm-usage"],
  // Tests may run as root, where Chromium's sandbox does not work.
  chromiumSandbox: false,
});

/** Opens a page that fails the test if it reports an error or asks another host for something. */
async function open(options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(10000);
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(String(error)));
  page.on("console", (message) => {
    // The page of an error has its status.
    if (message.type() === "error" && !message.text().includes("status of 404")) {
      page.problems.push(message.text());
    }
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url)) {
      page.problems.push(`asks ${request.url()}`);
    }
  });
  return page;
}

async function signIn(page) {
  await page.goto(pages.agents);
  await page.locator("#token").fill(token);
  await page.keyboard.press("Enter");
  await page.waitForURL(pages.agents);
}

async function text(page) {
  return page.locator("main").innerText();
}

/** Opens the page of changes, whose response does not end. */
async function follow(page) {
  await page.goto(`${url}/changes`, { waitUntil: "commit" });
  await page.getByText("No change from here on is missed.").waitFor();
}

async function save(state) {
  const saved = await fetch(`${url}/v1/agents/bot/names/memory/state`, {
    method: "PUT",
    headers: { authorization: `Bearer ${token}` },
    body: state,
  });
  return String((await saved.json()).version);
}

/** Follows or presses the first element with this text, with the keyboard. */
async function activate(page, label) {
  const named = new RegExp(`^${label}(: version .*)?$`);
  const link = page.getByRole("link", { name: named });
  const found = link.or(page.getByRole("button", { name: named })).first();
  await found.focus();
  await enter(page);
}

/** Sends the form or follows the link that has the focus. */
async function enter(page) {
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    window.axe.run({
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }),
  );
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html).join(" ")}`);
  assert.deepEqual(found, [], what);
}

async function looks() {
  const page = await open();
  await page.goto(pages.agents);
  await accessible(page, "sign-in");
  await signIn(page);
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const [what, address] of Object.entries(pages)) {
      await page.goto(address);
      for (const width of [375, 768, 1280, 1920]) {
        await page.setViewportSize({ width, height: 900 });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `${what} is ${wide} wide at ${width}`);
        if (width !== 768) {
          await page.screenshot({ path: join(directory, `${what}-${width}-${scheme}.png`) });
        }
      }
      await accessible(page, `${what}, ${scheme}`);
    }
    await follow(page);
    await accessible(page, `changes, ${scheme}`);
    // A screenshot waits for the end of the response.
    await page.evaluate(() => window.stop());
    await page.screenshot({ path: join(directory, `changes-1280-${scheme}.png`) });
  }
  assert.deepEqual(page.problems, []);
}

/** Runs an agent with the form, and checks the page of its result. */
async function runAgent(page, name) {
  await page.goto(pages.session);
  const args = page.getByLabel("Arguments, one a line");
  await args.fill(`save\n${name}\n<script>alert(1)</script>`);
  await activate(page, "Run");
  assert.match(await text(page), /Answer\s+version 1/);
  assert.ok((await text(page)).includes(`${name}, version 1`));
  await args.fill("echo\n<script>alert(1)</script>\n<img src=x onerror=alert(2)>");
  await activate(page, "Run");
  assert.match(await text(page), /<script>alert\(1\)<\/script>\n<img src=x/);
  assert.match(await text(page), /The run saved nothing/);
  await args.fill(`save\n${name}\ntwo`);
  await activate(page, "Run");
}

async function tasks(page) {
  await page.locator("#search").fill("bot/memo");
  await enter(page);
  await activate(page, "memory");
  await activate(page, "Undo the last change");
  assert.match(await text(page), /Version 4:\s*restored/);
  await activate(page, "Undo");
  assert.match(await text(page), /Version 5:\s*restored/);
  await activate(page, "Delete");
  assert.match(await text(page), /Version 6:\s*deleted/);
  await activate(page, "Undo");
  await activate(page, "Pin");
  assert.match(await text(page), /Version 7 is pinned/);
  await activate(page, "Undo");
  assert.match(await text(page), /not pinned any more/);
  await page.locator('input[name="from"][value="1"]').check();
  await activate(page, "Compare two versions");
  assert.ok((await page.locator("ins").count()) > 0, "lines that differ");
  await page.goto(pages.tree);
  await activate(page, "Text");
  await activate(page, "Bytes");
  assert.match(await text(page), /^00000000 {2}7b/m);
  await page.locator("#to-name").fill("copy");
  await enter(page);
  assert.match(await text(page), /forked/);
  await activate(page, "Undo");
  assert.match(await text(page), /Version 2:\s*deleted/);
  await runAgent(page, "plan");
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const width of [375, 1280, 1920]) {
      await page.setViewportSize({ width, height: 900 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `the result of a run is ${wide} wide at ${width}`);
      await page.screenshot({ path: join(directory, `run-${width}-${scheme}.png`) });
    }
    await accessible(page, `the result of a run, ${scheme}`);
  }
  await activate(page, "Undo");
  assert.match(await text(page), /Version 3:\s*restored from version 1/);
}

async function live() {
  const page = await open();
  await signIn(page);
  await page.goto(pages.name);
  await page.waitForFunction(() => document.getElementById("live").innerText.includes("Live"));
  await page.evaluate(() => document.activeElement.blur());
  const version = await save("saved by another program");
  await page.waitForFunction(
    (version) => [...document.querySelectorAll("tbody th")].some((th) => th.innerText === version),
    version,
  );
  assert.deepEqual(page.problems, []);
}

/** Tells a page that its tab is hidden or shown. Playwright shows all of them. */
async function show(page, isShown) {
  await page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, !isShown);
}

/** Opens more tabs than a browser opens connections to a host. */
async function tabs() {
  const first = await open();
  await signIn(first);
  let page = first;
  for (let count = 0; count < 8; count += 1) {
    await page.goto(pages.name);
    await page.waitForFunction(() => document.getElementById("live").innerText.includes("Live"));
    await show(page, false);
    page = await first.context().newPage();
    page.setDefaultTimeout(10000);
  }
  const version = await save("saved while the tab was hidden");
  await first.evaluate(() => document.activeElement.blur());
  await show(first, true);
  await first.waitForFunction(
    (version) => [...document.querySelectorAll("tbody th")].some((th) => th.innerText === version),
    version,
  );
  assert.deepEqual(first.problems, []);
}

try {
  await looks();
  for (const isScripted of [true, false]) {
    const page = await open({ javaScriptEnabled: isScripted });
    await signIn(page);
    if (isScripted) {
      await tasks(page);
    } else {
      await runAgent(page, "plan-2");
      await activate(page, "Undo");
      await page.goto(pages.name);
      await activate(page, "Delete");
      await activate(page, "Undo");
      assert.match(await text(page), /restored/);
      await follow(page);
      const version = await save("seen without JavaScript");
      await activate(page, `bot/memory, version ${version}`);
      assert.match(await text(page), /seen without JavaScript/);
    }
    await activate(page, "Sign out");
    assert.equal(await page.locator("h1").innerText(), "Sign in");
    assert.deepEqual(page.problems, []);
  }
  await live();
  await tabs();
} finally {
  await browser.close();
}
