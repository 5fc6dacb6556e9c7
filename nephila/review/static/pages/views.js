// How the particles are spread over view directions, and a cap per view: for all groups or for one.

import { getJson } from "../api.js";
import { fixed, h, plural, svg } from "../dom.js";
import { Edit, editTools } from "../edits.js";

const SIDE = 460;

export async function show(root, context) {
  const edit = new Edit("best_per_view");
  const [data] = await Promise.all([getJson("/api/views"), edit.load()]);
  const tools = editTools(edit);
  let moving = null; // a cap that is being moved and is not saved
  let timer = 0;
  const names = Object.keys(data.groups).sort((a, b) => a - b);
  const group = h("select", { "aria-label": "Group", onchange: () => ((moving = null), draw()) }, h("option", { value: "all" }, "all groups"), names.map((name) => h("option", { value: name }, `group ${name}`)));
  const which = h("select", { "aria-label": "Particles", onchange: () => draw() }, h("option", { value: "counts" }, "all aligned"), names.some((n) => data.groups[n].above) ? h("option", { value: "above" }, "above the thresholds") : null);
  const most = Math.max(1, ...names.flatMap((n) => data.groups[n].counts));
  const cap = h("input", { type: "range", min: 1, max: most, "aria-label": "Cap per view and group", oninput: () => move(Number(cap.value)), onchange: () => store() });
  const field = h("input", { type: "number", min: 1, max: most, step: 1, "aria-label": "Cap as a number", onchange: () => (move(Math.round(Number(field.value))), store()) });
  const map = svg("svg", { class: "plot map", viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", "aria-label": "Hemisphere of view directions, seen from the pole; the size of a disc is its number of particles" });
  const facts = h("div");
  const table = h("tbody");
  const rows = (name) => data.groups[name][which.value] ?? data.groups[name].counts;
  const mine = () => (group.value === "all" ? names : [group.value]);
  const saved = (name) => edit.value(name) ?? data.cap; // 0: no cap
  const limit = (name) => (moving !== null && mine().includes(name) ? moving : saved(name));
  const words = (value) => (value ? `at most ${value} per view` : "no cap");
  const whose = () => (group.value === "all" ? "All groups" : `Group ${group.value}`);

  function move(value) {
    if (!(value >= 1)) return;
    moving = Math.min(value, most);
    draw();
  }

  function store() {
    clearTimeout(timer);
    if (moving !== null) decide(moving);
  }

  function decide(value) {
    clearTimeout(timer);
    moving = null;
    edit.decide(Object.fromEntries(mine().map((name) => [name, value])), `${whose()}: ${words(value)}`);
    draw();
  }

  function asSet() {
    clearTimeout(timer);
    moving = null;
    edit.decide(Object.fromEntries(mine().map((name) => [name, edit.proposal[name]])), `${whose()}: as in the settings`);
    draw();
  }

  function nudge(by) {
    move((limit(mine()[0]) || most) + by);
    clearTimeout(timer);
    timer = setTimeout(store, 600);
  }

  function step(by) {
    store();
    group.selectedIndex = Math.max(0, Math.min(group.length - 1, group.selectedIndex + by));
    draw();
  }

  function draw() {
    const chosen = group.value === "all" ? names : [group.value];
    const counts = data.view.map((_, i) => chosen.reduce((sum, name) => sum + rows(name)[i], 0));
    const total = counts.reduce((a, b) => a + b, 0);
    const mean = total / counts.length;
    const largest = Math.max(...counts, 1);
    const scale = Math.min((0.36 * SIDE) / Math.sqrt(counts.length), 26) / Math.sqrt(largest);
    const discs = counts.map((n, i) => {
      const radius = (SIDE / 2 - 28) * Math.SQRT2 * Math.sin((Math.PI / 360) * data.tilt[i]);
      const x = SIDE / 2 + radius * Math.cos((Math.PI / 180) * data.rot[i]);
      const y = SIDE / 2 - radius * Math.sin((Math.PI / 180) * data.rot[i]);
      const title = svg("title", {}, `view ${data.view[i]} (rot ${fixed(data.rot[i], 0)}°, tilt ${fixed(data.tilt[i], 0)}°): ${plural(n, "particle")}`);
      const colour = n > 3 * mean ? "var(--bad)" : "var(--accent)";
      return n ? svg("circle", { cx: x, cy: y, r: Math.max(2, scale * Math.sqrt(n)), fill: colour, opacity: 0.8 }, title) : svg("circle", { cx: x, cy: y, r: 3, fill: "none", stroke: "var(--bad)" }, title);
    });
    const ring = (tilt) => (SIDE / 2 - 28) * Math.SQRT2 * Math.sin((Math.PI / 360) * tilt);
    map.replaceChildren(
      ...[30, 60, 90].map((tilt) => svg("circle", { class: "grid", cx: SIDE / 2, cy: SIDE / 2, r: ring(tilt), fill: "none" })),
      ...discs,
      ...[30, 60, 90].map((tilt) => svg("text", { class: "halo", x: SIDE / 2 + 3, y: SIDE / 2 - ring(tilt) - 3 }, `${tilt}°`)),
    );
    const empty = counts.filter((n) => n === 0).length;
    facts.replaceChildren(
      h("dl", {}, [
        ["Particles", total],
        ["Views", counts.length],
        ["Views without particles", empty],
        ["Most on a view", `${largest} (${(largest / (mean || 1)).toFixed(1)} × the mean)`],
      ].map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)])),
      h("p", { class: "quiet" }, "Seen from the pole, equal areas; red: more than three times the mean, or none."),
    );
    const limits = new Set(mine().map(limit));
    title.textContent = `${whose()}: ${limits.size > 1 ? "different caps" : words([...limits][0])}`;
    cap.value = limit(mine()[0]) || most;
    if (document.activeElement !== field || moving !== null) field.value = limits.size > 1 ? "" : limit(mine()[0]) || "";
    const above = (name) => data.groups[name].above ?? data.groups[name].counts;
    const capped = (name) => above(name).reduce((sum, n) => sum + Math.min(n, limit(name) || n), 0);
    const before = (name) => above(name).reduce((sum, n) => sum + n, 0);
    const lines = names.map((name) => h("tr", {}, h("td", {}, name, edit.decided(name) ? " •" : ""), h("td", { class: "number" }, before(name)), h("td", { class: "number" }, limit(name) || "–"), h("td", { class: "number" }, capped(name))));
    const sum = (of) => names.reduce((s, name) => s + of(name), 0);
    table.replaceChildren(h("tr", {}, h("td", {}, h("b", {}, "all")), h("td", { class: "number" }, sum(before)), h("td"), h("td", { class: "number", id: "capped" }, sum(capped))), ...lines);
  }

  const title = h("h2", { role: "status" });
  edit.listeners.push(draw);
  const head = h("tr", {}, h("th", {}, "Group"), ["Above thresholds", "Cap", "With the cap"].map((text) => h("th", { class: "number" }, text)));
  root.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, "Views"), h("label", {}, "Particles of ", group), h("label", {}, which), h("span", { class: "grow" }), tools.buttons),
    tools.notice,
    h("div", { class: "columns" }, h("div", { class: "panel fill center" }, map), h("div", { class: "panel views-side" }, facts, title, h("div", { class: "row" }, h("span", { class: "fill" }, cap), field),
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => decide(0) }, "No cap"), h("button", { type: "button", onclick: asSet }, "As in the settings ", h("kbd", {}, "p"))),
      h("p", { class: "quiet" }, "Of each view the particles of highest correlation go on. ", data.cap ? `The settings have a cap of ${data.cap}.` : "The settings have no cap."), h("table", {}, h("thead", {}, head), table))),
  );
  draw();
  context.tools = [tools.keys];
  context.keys = [
    ["+", "raise the cap", () => nudge(1)],
    ["-", "lower the cap", () => nudge(-1)],
    ["p", "as in the settings", asSet],
    ["j", "next group", () => step(1)],
    ["i", "group before", () => step(-1)],
  ];
  return () => clearTimeout(timer);
}
