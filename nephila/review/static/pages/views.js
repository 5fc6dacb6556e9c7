// How the particles are spread over view directions, and what a cap per view would leave.

import { getJson } from "../api.js";
import { fixed, h, plural, svg } from "../dom.js";

const SIDE = 460;

export async function show(root, context) {
  const data = await getJson("/api/views");
  const names = Object.keys(data.groups).sort((a, b) => a - b);
  const group = h("select", { "aria-label": "Group", onchange: () => draw() }, h("option", { value: "all" }, "all groups"), names.map((name) => h("option", { value: name }, `group ${name}`)));
  const which = h("select", { "aria-label": "Particles", onchange: () => draw() }, h("option", { value: "counts" }, "all aligned"), names.some((n) => data.groups[n].above) ? h("option", { value: "above" }, "above the thresholds") : null);
  const most = Math.max(1, ...names.flatMap((n) => data.groups[n].counts));
  const cap = h("input", { type: "range", min: 1, max: most, value: data.cap ?? most, "aria-label": "Cap per view and group", oninput: () => draw() });
  const map = svg("svg", { class: "plot map", viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", "aria-label": "Hemisphere of view directions, seen from the pole; the size of a disc is its number of particles" });
  const facts = h("div");
  const table = h("tbody");
  const rows = (name) => data.groups[name][which.value] ?? data.groups[name].counts;

  function draw() {
    const chosen = group.value === "all" ? names : [group.value];
    const counts = data.view.map((_, i) => chosen.reduce((sum, name) => sum + rows(name)[i], 0));
    const total = counts.reduce((a, b) => a + b, 0);
    const mean = total / counts.length;
    const largest = Math.max(...counts, 1);
    const scale = (0.36 * SIDE) / Math.sqrt(counts.length) / Math.sqrt(largest);
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
    const limit = Number(cap.value);
    facts.replaceChildren(
      h("dl", {}, [
        ["Particles", total],
        ["Views", counts.length],
        ["Views without particles", empty],
        ["Most on a view", `${largest} (${(largest / (mean || 1)).toFixed(1)} × the mean)`],
      ].map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)])),
      h("p", { class: "quiet" }, "Seen from the pole, equal areas; red: more than three times the mean, or none."),
      h("h2", {}, `A cap of ${limit} per view and group`),
    );
    const capped = (name) => (data.groups[name].above ?? data.groups[name].counts).reduce((sum, n) => sum + Math.min(n, limit), 0);
    const before = (name) => (data.groups[name].above ?? data.groups[name].counts).reduce((sum, n) => sum + n, 0);
    const lines = names.map((name) => h("tr", {}, h("td", {}, name), h("td", { class: "number" }, before(name)), h("td", { class: "number" }, capped(name))));
    const sum = (of) => names.reduce((s, name) => s + of(name), 0);
    table.replaceChildren(h("tr", {}, h("td", {}, h("b", {}, "all")), h("td", { class: "number" }, sum(before)), h("td", { class: "number", id: "capped" }, sum(capped))), ...lines);
    note.replaceChildren(
      h("p", {}, data.cap ? `The settings have a cap of ${data.cap}.` : "The settings have no cap.", " To set it, write into config.yaml, section thresholds:"),
      h("pre", {}, `best_per_view: ${limit}`),
    );
  }

  const note = h("div");
  const head = h("tr", {}, h("th", {}, "Group"), h("th", { class: "number" }, "Above thresholds"), h("th", { class: "number" }, "With the cap"));
  root.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, "Views"), h("label", {}, "Particles of ", group), h("label", {}, which)),
    h("div", { class: "columns" }, h("div", { class: "panel fill center" }, map), h("div", { class: "panel views-side" }, facts, cap, note, h("table", {}, h("thead", {}, head), table))),
  );
  draw();
  context.tools = [];
  context.keys = [
    ["+", "raise the cap", () => ((cap.value = Number(cap.value) + 1), draw())],
    ["-", "lower the cap", () => ((cap.value = Number(cap.value) - 1), draw())],
    ["j", "next group", () => ((group.selectedIndex = Math.min(group.length - 1, group.selectedIndex + 1)), draw())],
    ["i", "group before", () => ((group.selectedIndex = Math.max(0, group.selectedIndex - 1)), draw())],
  ];
  return () => {};
}
