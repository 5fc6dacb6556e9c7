// Correlation thresholds: a histogram for each group with a line to move, and what falls on either side of it.

import { getJson } from "../api.js";
import { fixed, h, plural, svg } from "../dom.js";
import { Edit, editTools } from "../edits.js";
import { Grid, tile } from "../grid.js";

const WIDTH = 640;
const HEIGHT = 190;
const EDGE = { left: 44, right: 26, top: 10, bottom: 30 };
const BINS = 60;
const SIDE = 64;

// Particles at or above a threshold; correlations fall.
export function above(correlations, threshold) {
  let low = 0;
  let high = correlations.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (correlations[middle] >= threshold) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The threshold below which a share of the particles falls, with few digits.
export function cut(correlations, share) {
  const n = correlations.length;
  const lowest = correlations[n - 1 - Math.min(n - 1, Math.floor(share * n + 1e-9))];
  for (let digits = 4; digits < 10; digits += 1) {
    const value = Number((Math.floor(lowest * 10 ** digits) / 10 ** digits).toFixed(digits));
    if (above(correlations, value) === above(correlations, lowest)) return value;
  }
  return lowest;
}

export async function show(root, context) {
  const [data, edit] = [await getJson("/api/thresholds"), new Edit("thresh")];
  await edit.load();
  const albums = context.project.albums;
  const tools = editTools(edit);
  const groups = data.groups.filter((group) => group.correlations.length);
  const all = groups.flatMap((group) => group.correlations);
  const [lowest, highest] = all.reduce(([a, b], c) => [Math.min(a, c), Math.max(b, c)], [Infinity, -Infinity]);
  const margin = 0.03 * (highest - lowest || 1);
  const [from, to] = [lowest - margin, highest + margin];
  let current = groups[0];
  let moving = null; // the threshold while it is being moved

  const value = (group) => (group === current && moving !== null ? moving : edit.value(String(group.group)));
  const x = (c) => EDGE.left + ((c - from) / (to - from)) * (WIDTH - EDGE.left - EDGE.right);
  const plot = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "Histogram of the correlations with the threshold" });
  const slider = h("input", { type: "range", min: from, max: to, step: "any", "aria-label": "Threshold", oninput: () => move(Number(slider.value)), onchange: () => store() });
  const field = h("input", { type: "number", step: "0.0001", "aria-label": "Threshold as a number", onchange: () => (move(Number(field.value)), store()), onblur: () => (field.value = value(current)) });
  const counter = h("span", { class: "badge", role: "status" });
  const counts = h("p", { role: "status" });
  const body = h("tbody");

  const side = (label, index) =>
    new Grid({
      label, width: SIDE + 4, height: SIDE + 4, count: 0, many: false, class: "panel",
      make: () => h("div", {}, h("div", { class: "thumb" })),
      show: (cell, k) => {
        const rank = index(k);
        tile(cell.firstChild, albums.groups, "groups", current.group, rank, current.version, SIDE);
        cell.setAttribute("aria-label", `correlation ${fixed(current.correlations[rank], 4)}`);
        cell.title = fixed(current.correlations[rank], 4);
      },
    });
  const averages = ["kept", "dropped"].map((name) => h("img", { class: "average", alt: `Average of the ${name} particles nearest the threshold, centred and turned in their plane`, width: 72, height: 72 }));
  const kept = side("Kept, lowest correlation first", (k) => above(current.correlations, value(current)) - 1 - k);
  const dropped = side("Dropped, highest correlation first", (k) => above(current.correlations, value(current)) + k);

  function move(threshold) {
    if (!Number.isFinite(threshold)) return;
    moving = Number(threshold.toFixed(4));
    draw();
  }

  function store() {
    if (moving === null) return;
    const wanted = moving;
    moving = null;
    edit.decide({ [current.group]: wanted }, `Threshold of group ${current.group}: ${wanted}`);
    draw();
  }

  function histogram() {
    const heights = new Array(BINS).fill(0);
    for (const c of current.correlations) heights[Math.min(BINS - 1, Math.floor(((c - from) / (to - from)) * BINS))] += 1;
    const most = Math.max(...heights, 1);
    const y = (n) => HEIGHT - EDGE.bottom - (n / most) * (HEIGHT - EDGE.top - EDGE.bottom);
    const width = (WIDTH - EDGE.left - EDGE.right) / BINS;
    const threshold = value(current);
    const bars = heights.map((n, i) => {
      const middle = from + ((i + 0.5) / BINS) * (to - from);
      return n ? svg("rect", { x: EDGE.left + i * width + 0.5, y: y(n), width: width - 1, height: HEIGHT - EDGE.bottom - y(n), fill: middle >= threshold ? "var(--accent)" : "var(--bad)", opacity: middle >= threshold ? 1 : 0.55 }) : null;
    });
    const ticks = [0, 1, 2, 3, 4, 5].map((i) => from + (i / 5) * (to - from));
    const at = Math.max(EDGE.left, Math.min(WIDTH - EDGE.right, x(threshold)));
    const proposed = x(edit.proposal[String(current.group)]);
    plot.replaceChildren(
      ...bars.filter(Boolean),
      svg("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: HEIGHT - EDGE.bottom, y2: HEIGHT - EDGE.bottom }),
      ...ticks.map((c) => svg("text", { x: x(c), y: HEIGHT - 12, "text-anchor": "middle" }, c.toFixed(3))),
      svg("text", { x: 6, y: EDGE.top + 10 }, most),
      svg("line", { x1: proposed, x2: proposed, y1: EDGE.top + 12, y2: HEIGHT - EDGE.bottom, stroke: "var(--quiet)", "stroke-dasharray": "3 3" }),
      svg("line", { x1: at, x2: at, y1: EDGE.top, y2: HEIGHT - EDGE.bottom, stroke: "var(--text)", "stroke-width": 2 }),
      svg("rect", { x: at - 5, y: EDGE.top - 4, width: 10, height: 12, rx: 2, fill: "var(--text)" }),
      svg("rect", { class: "handle", x: at - 9, y: 0, width: 18, height: HEIGHT - EDGE.bottom, fill: "transparent", cursor: "ew-resize" }),
    );
  }

  function drag(event) {
    if (event.button !== 0) return;
    plot.setPointerCapture(event.pointerId);
    const follow = (next) => {
      const box = plot.getBoundingClientRect();
      const px = ((next.clientX - box.left) / box.width) * WIDTH;
      move(from + ((px - EDGE.left) / (WIDTH - EDGE.left - EDGE.right)) * (to - from));
    };
    follow(event);
    plot.addEventListener("pointermove", follow);
    plot.addEventListener("pointerup", () => (plot.removeEventListener("pointermove", follow), store()), { once: true });
  }
  plot.addEventListener("pointerdown", drag);

  function draw() {
    const n = current.correlations.length;
    const threshold = value(current);
    const keep = above(current.correlations, threshold);
    histogram();
    slider.value = threshold;
    if (document.activeElement !== field || moving !== null) field.value = threshold; // not while someone types into it
    counts.replaceChildren(h("b", {}, `Group ${current.group}: ${keep} above, ${n - keep} below`), ` (${((100 * (n - keep)) / n).toFixed(1)} % dropped), proposed ${edit.proposal[String(current.group)]}`);
    if (moving === null) {
      ["kept", "dropped"].forEach((name, i) => {
        const some = i ? n - keep : keep;
        averages[i].classList.toggle("hide", !some);
        const address = `/average/${name}/${current.group}?threshold=${threshold}&v=${current.version}`;
        if (some && averages[i].getAttribute("src") !== address) averages[i].setAttribute("src", address);
      });
    }
    kept.set(keep);
    dropped.set(n - keep);
    let total = 0;
    body.replaceChildren(
      ...groups.map((group) => {
        const mine = above(group.correlations, value(group));
        total += mine;
        const size = group.correlations.length;
        const row = h("tr", { tabindex: "0", "aria-selected": String(group === current), onclick: () => select(group), onkeydown: (event) => event.key === "Enter" && select(group) },
          h("td", {}, group.group, edit.decided(String(group.group)) ? " •" : ""), h("td", { class: "number" }, value(group)), h("td", { class: "number" }, mine), h("td", { class: "number" }, `${((100 * mine) / size).toFixed(0)} %`));
        return row;
      }),
    );
    counter.textContent = `${total} of ${all.length} particles kept`;
  }

  function select(group) {
    current = group;
    moving = null;
    kept.element.scrollTop = dropped.element.scrollTop = 0;
    draw();
  }

  function step(by) {
    select(groups[Math.max(0, Math.min(groups.length - 1, groups.indexOf(current) + by))]);
  }

  function proposed() {
    moving = null;
    edit.decide({ [current.group]: edit.proposal[String(current.group)] }, `Threshold of group ${current.group}: as proposed`);
  }

  function everyGroup() {
    const share = 1 - above(current.correlations, value(current)) / current.correlations.length;
    const wanted = Object.fromEntries(groups.map((group) => [group.group, group === current ? value(group) : cut(group.correlations, share)]));
    edit.decide(wanted, `All groups: ${(100 * share).toFixed(1)} % below the threshold, as in group ${current.group}`);
  }

  function nudge(by) {
    move(value(current) + by);
    clearTimeout(nudge.timer);
    nudge.timer = setTimeout(store, 600);
  }

  edit.listeners.push(draw);
  const head = h("tr", {}, h("th", {}, "Group"), ["Threshold", "Kept", "Share"].map((text) => h("th", { class: "number" }, text)));
  root.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, "Thresholds"), counter, h("span", { class: "grow" }), tools.buttons),
    tools.notice,
    h("div", { class: "columns" },
      h("div", { class: "panel side" }, h("table", {}, h("thead", {}, head), body)),
      h("div", { class: "fill stack" },
        h("div", { class: "panel" }, counts, plot, h("div", { class: "row" }, h("span", { class: "fill" }, slider), field,
          h("button", { type: "button", onclick: proposed }, "As proposed ", h("kbd", {}, "p")),
          h("button", { type: "button", onclick: everyGroup }, "Same share in all groups"))),
        h("div", { class: "columns sides" },
          h("div", { class: "fill stack" }, h("div", { class: "row" }, averages[0], h("h3", {}, "Kept, lowest first")), kept.element),
          h("div", { class: "fill stack" }, h("div", { class: "row" }, averages[1], h("h3", {}, "Dropped, highest first")), dropped.element)))),
  );
  draw();
  context.tools = [tools.keys];
  context.keys = [
    ["j", "next group", () => step(1)],
    ["i", "group before", () => step(-1)],
    ["+", "raise the threshold by 0.001", () => nudge(0.001)],
    ["-", "lower the threshold by 0.001", () => nudge(-0.001)],
    ["p", "as proposed", proposed],
  ];
  return () => (clearTimeout(nudge.timer), kept.destroy(), dropped.destroy());
}
