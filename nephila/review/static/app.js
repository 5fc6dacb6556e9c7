// The frame: which page is shown, keys that hold everywhere, what the edits lead to.

import { getJson } from "./api.js";
import { ask, complain, h, isTyping, plural } from "./dom.js";

const PAGES = [
  ["micrographs", "Micrographs"],
  ["ctf", "CTF"],
  ["groups", "Defocus groups"],
  ["particles", "Particles"],
  ["thresholds", "Thresholds"],
  ["views", "Views"],
  ["volumes", "Volumes"],
  ["runs", "Runs"],
];
const KEYS = [
  ["1 – 8", "pages, in their order"],
  ["w", "what will rerun"],
  ["Arrows, Page Up/Down, Home, End", "move in a montage; with Shift choose a range"],
  ["Ctrl+A, Escape", "choose all, none"],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["Enter", "look closer"],
];

const context = { project: null };
let active = { keys: [], tools: [] }; // keys of the page at hand
let leave = null;
let current = null;
let seen = true; // whether it has been said what the last edit leads to

async function start() {
  try {
    context.project = await getJson("/api/project");
  } catch (error) {
    document.getElementById("page").append(h("p", { class: "notice", role: "alert" }, error.message));
    return;
  }
  document.title = `${context.project.name} – Nephila review`;
  const brand = document.getElementById("project");
  brand.textContent = context.project.name;
  brand.title = context.project.folder;
  drawPages();
  window.addEventListener("hashchange", route);
  document.addEventListener("keydown", keys);
  document.addEventListener("edited", () => {
    seen = false;
    planSoon();
  });
  window.addEventListener("beforeunload", (event) => {
    if (!seen) event.preventDefault();
  });
  document.getElementById("reruns").addEventListener("click", showPlan);
  document.getElementById("help").addEventListener("click", showHelp);
  setInterval(refresh, 15000);
  route();
}

function drawPages() {
  const links = PAGES.map(([name, label]) => {
    const there = context.project.pages[name];
    const link = h("a", { href: `#/${name}`, "aria-disabled": there ? null : "true", title: there ? null : "nothing to show yet" }, label);
    if (!there) link.tabIndex = -1;
    if (name === current) link.setAttribute("aria-current", "page");
    return link;
  });
  document.getElementById("pages").replaceChildren(...links);
  document.getElementById("running").hidden = !context.project.running;
}

async function refresh() {
  try {
    context.project = await getJson("/api/project");
    drawPages();
  } catch (error) {
    complain(error);
  }
}

async function route() {
  if (location.hash === "#page") return;
  const wanted = location.hash.replace("#/", "");
  const there = PAGES.map(([name]) => name).filter((name) => context.project.pages[name]);
  const name = there.includes(wanted) ? wanted : there[0];
  const view = h("div", { class: "view" }, h("p", { class: "bar quiet" }, "Loading …"));
  leave?.();
  leave = null;
  current = name;
  active = { keys: [], tools: [] };
  drawPages();
  document.getElementById("page").replaceChildren(view);
  if (!name) {
    view.replaceChildren(h("p", { class: "notice" }, "There are no results yet. Start the run: nephila run"));
    return;
  }
  // a page that is slow to load may find that another one was asked for meanwhile: it then fills nothing and holds no keys
  const mine = { project: context.project, keys: [], tools: [] };
  try {
    const page = await import(`./pages/${name}.js`);
    const done = await page.show(view, mine);
    if (!view.isConnected) return done();
    leave = done;
    active = mine;
  } catch (error) {
    view.replaceChildren(h("p", { class: "notice", role: "alert" }, error.message));
  }
}

// Pages put [key, what, action] into context.keys.
function keys(event) {
  if (isTyping(event)) return;
  for (const tool of active.tools) if (tool(event)) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const page = Number(event.key);
  if (page >= 1 && page <= PAGES.length && context.project.pages[PAGES[page - 1][0]]) {
    location.hash = `#/${PAGES[page - 1][0]}`;
  } else if (event.key === "w") showPlan();
  else if (event.key === "?") showHelp();
  else {
    const found = active.keys.find(([key]) => key === event.key);
    if (!found) return;
    found[2]();
  }
  event.preventDefault();
}

function showHelp() {
  const row = ([key, what]) => h("tr", {}, h("td", {}, h("kbd", {}, key === " " ? "Space" : key)), h("td", {}, what));
  ask("Keys", h("table", {}, h("tbody", {}, [...active.keys, ...KEYS].map(row))));
}

// --- what the edits lead to

let planned = null;
let timer = 0;

function planSoon() {
  clearTimeout(timer);
  planned = null;
  mark("What will rerun …");
  timer = setTimeout(() => fetchPlan().catch(() => mark("What will rerun")), 1500);
}

function mark(text, warn = false) {
  const button = document.getElementById("reruns");
  button.textContent = text;
  button.classList.toggle("main", warn);
}

function fetchPlan() {
  if (!planned) {
    const mine = getJson("/api/reruns");
    planned = mine;
    mine.then(
      (plan) => {
        if (planned !== mine) return;
        mark(plan.nothing ? "Nothing will rerun" : `${plural(plan.total, "job")} will rerun`, !plan.nothing && !seen);
        seen = true;
      },
      () => planned === mine && (planned = null),
    );
  }
  return planned;
}

async function showPlan() {
  const place = h("div", {}, h("p", { class: "quiet", role: "status" }, "Asking the workflow (a dry run) …"));
  const closed = ask("What will rerun", place);
  fetchPlan().then(
    (plan) => {
      seen = true;
      mark(plan.nothing ? "Nothing will rerun" : `${plural(plan.total, "job")} will rerun`);
      place.replaceChildren(...planContent(plan));
    },
    (error) => place.replaceChildren(h("p", { class: "badge bad", role: "alert" }, error.message)),
  );
  await closed;
}

function planContent(plan) {
  if (plan.nothing) return [h("p", {}, "Nothing: all results agree with the edits and the settings.")];
  const stages = plan.stages.map(({ name, jobs }) => h("tr", {}, h("td", {}, name.replace("_", " ")), h("td", { class: "number" }, jobs)));
  const rules = Object.entries(plan.rules).map(([name, count]) => (count > 1 ? `${name} × ${count}` : name));
  const jobs = plan.jobs.map(({ what, why }) => h("tr", {}, h("td", {}, what), h("td", { class: "quiet" }, why)));
  return [
    plan.running ? h("p", { class: "badge warn" }, "A run is going on: what it has yet to do is in this list.") : null,
    h("p", {}, `${plural(plan.total, "job")}${plan.more ? ", and those that follow from their results" : ""}. Start them with `, h("code", {}, "nephila run"), "."),
    h("div", { class: "row" }, h("table", { class: "plan-stages" }, h("tbody", {}, stages))),
    h("p", { class: "quiet", id: "plan-rules" }, rules.join(", ")),
    h("details", {}, h("summary", {}, "Every job, and why"), h("table", {}, h("tbody", {}, jobs))),
  ].filter(Boolean);
}

start();
