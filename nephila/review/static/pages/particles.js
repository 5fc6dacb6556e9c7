// Particles by micrograph or by class average: good or bad, by click, box or key.

import { getJson } from "../api.js";
import { complain, fixed, h, plural, short } from "../dom.js";
import { Edit, editTools } from "../edits.js";
import { Grid, tile } from "../grid.js";

const SIZES = [["48", "small"], ["72", "middle"], ["120", "large"]];

export async function show(root, context) {
  const data = await getJson("/api/particles");
  const albums = context.project.albums;
  const keys = [];
  const proposal = {};
  const starts = [];
  let first = 0;
  data.micrographs.forEach((name, m) => {
    starts.push(first);
    for (let k = 0; k < data.counts[m]; k += 1) keys.push(`${name}#${data.numbers[first + k]}`);
    first += data.counts[m];
  });
  keys.forEach((key, i) => (proposal[key] = String(i) in data.dropped ? 0 : 1));
  const edit = new Edit("good", proposal);
  await edit.load();
  const tools = editTools(edit);
  // what the grid shows: rows of particles, and their sheets
  let shown = { rows: keys.map((_, i) => i), album: "particles", key: 0, offset: 0, label: "All micrographs" };
  let size = 72;

  const grid = new Grid({
    label: "Particles", width: size + 4, height: size + 4, count: 0,
    make: () => h("div", {}, h("div", { class: "thumb" })),
    show: (cell, k) => {
      const i = shown.rows[k];
      tile(cell.firstChild, albums[shown.album], shown.album, shown.key, k + shown.offset, data.version, size);
      const good = edit.value(keys[i]) === 1;
      cell.classList.toggle("off", !good);
      cell.classList.toggle("decided", edit.decided(keys[i]));
      cell.setAttribute("aria-label", `${short(keys[i].split("#")[0])} particle ${data.numbers[i]}, ${good ? "good" : "bad"}`);
    },
    onAt: () => detail(),
    onClick: () => toggle(),
    onChoose: () => count(),
  });

  const counter = h("span", { class: "badge", role: "status" });
  const panel = h("p", { class: "quiet", "aria-live": "off" });
  const by = h("select", { "aria-label": "Montage by", onchange: () => sources() }, h("option", { value: "micrograph" }, "micrograph"), data.averages?.length ? h("option", { value: "view" }, "class average") : null);
  const sizes = h("select", { "aria-label": "Size of the pictures", onchange: () => resize() }, SIZES.map(([value, label]) => h("option", { value, selected: value === "72" }, label)));
  const list = h("div", { class: "side stack" });
  let views = null;

  function count() {
    const bad = keys.length - goodOf(null);
    const chosen = grid.chosen.size ? ` · ${grid.chosen.size} chosen` : "";
    counter.textContent = `${keys.length - bad} good, ${bad} bad of ${keys.length}${chosen}`;
    for (const button of actions.querySelectorAll("button")) button.disabled = !grid.count;
  }

  function goodOf(rows) {
    if (rows) return rows.reduce((sum, i) => sum + (edit.value(keys[i]) === 1), 0);
    let good = keys.length - Object.keys(data.dropped).length;
    for (const [key, value] of Object.entries(edit.rows)) if (key in proposal) good += value - proposal[key];
    return good;
  }

  function decide(value, subjects = grid.subjects()) {
    const chosen = subjects.map((k) => keys[shown.rows[k]]);
    if (!chosen.length) return;
    const one = chosen.length === 1 ? `particle ${chosen[0].split("#")[1]} of ${short(chosen[0].split("#")[0])}` : plural(chosen.length, "particle");
    const what = { 1: `Good: ${one}`, 0: `Bad: ${one}`, proposed: `As proposed: ${one}` }[value];
    edit.decide(Object.fromEntries(chosen.map((key) => [key, value === "proposed" ? proposal[key] : value])), what);
    grid.chosen.clear();
    grid.refresh();
  }

  function toggle() {
    const key = keys[shown.rows[grid.at]];
    if (key) decide(edit.value(key) === 1 ? 0 : 1, [grid.at]);
  }

  function detail() {
    const i = shown.rows[grid.at];
    if (i === undefined) return;
    const parts = [keys[i].replace("#", " · particle ").split("/").pop()];
    if (String(i) in data.dropped) parts.push(`proposed as bad: ${data.dropped[i]}`);
    if (data.views?.[i]) parts.push(`view ${data.views[i]}, correlation ${fixed(data.correlations[i], 3)}`);
    panel.textContent = parts.join(" · ");
  }

  function choose(next) {
    shown = next;
    grid.label = next.label;
    grid.element.setAttribute("aria-label", `Particles: ${next.label}`);
    grid.set(next.rows.length);
    grid.element.scrollTop = 0;
    grid.at = 0;
    grid.refresh();
    detail();
    count();
  }

  function resize() {
    size = Number(sizes.value);
    grid.width = grid.height = size + 4;
    grid.resize();
  }

  function sources() {
    views?.destroy();
    views = null;
    if (by.value === "view") byView();
    else byMicrograph();
  }

  function byMicrograph() {
    const all = { rows: keys.map((_, i) => i), album: "particles", key: 0, offset: 0, label: "All micrographs" };
    const row = (m) => {
      const [name, label] = m < 0 ? ["all", `All micrographs (${keys.length})`] : [data.micrographs[m], `${short(data.micrographs[m])} (${data.counts[m]})`];
      return h("option", { value: m, title: name, selected: m < 0 }, label);
    };
    const select = h("select", { size: 20, class: "fill", "aria-label": "Micrograph", onchange: () => {
      const m = Number(select.value);
      if (m < 0) return choose(all);
      const rows = Array.from({ length: data.counts[m] }, (_, k) => starts[m] + k);
      choose({ rows, album: "particles", key: 0, offset: starts[m], label: short(data.micrographs[m]) });
    } }, [-1, ...data.micrographs.keys()].map(row));
    list.replaceChildren(select, actions);
    choose(all);
  }

  function byView() {
    const averages = data.averages.filter((average) => average.particles);
    views = new Grid({
      label: "Class averages", width: 76, height: 94, count: averages.length, many: false,
      make: () => h("div", { class: "card" }, h("div", { class: "thumb" }), h("div", { class: "caption" })),
      show: (cell, k) => {
        const average = averages[k];
        tile(cell.firstChild, albums.averages, "averages", 0, data.averages.indexOf(average), data.averagesVersion, 72);
        cell.lastChild.textContent = average.particles;
        cell.setAttribute("aria-label", `View ${average.view}, ${plural(average.particles, "particle")}`);
      },
      onAt: (k) => open(averages[k].view),
    });
    list.replaceChildren(views.element, actions);
    views.draw();
    open(averages[0].view);
  }

  async function open(view) {
    try {
      const rows = await getJson(`/api/view/${view}`);
      choose({ rows, album: "views", key: view, offset: 0, label: `view ${view}` });
    } catch (error) {
      complain(error);
    }
  }

  const everything = () => shown.rows.map((_, k) => k);
  const actions = h("div", { class: "stack" },
    h("div", { class: "row" },
      h("button", { type: "button", onclick: () => decide(1) }, "Good ", h("kbd", {}, "g")),
      h("button", { type: "button", onclick: () => decide(0) }, "Bad ", h("kbd", {}, "b")),
      h("button", { type: "button", onclick: () => decide("proposed") }, "As proposed ", h("kbd", {}, "p")),
    ),
    h("div", { class: "row" },
      h("button", { type: "button", onclick: () => decide(0, everything()) }, "All shown bad"),
      h("button", { type: "button", onclick: () => decide(1, everything()) }, "All shown good"),
    ),
  );

  edit.listeners.push(() => (grid.refresh(), count()));
  root.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, "Particles"), counter, h("label", {}, "By ", by), h("label", {}, "Pictures ", sizes), h("span", { class: "grow" }), tools.buttons),
    tools.notice,
    h("div", { class: "columns" }, list, h("div", { class: "fill stack" }, grid.element, panel)),
  );
  sources();
  grid.element.focus();
  context.tools = [tools.keys];
  context.keys = [
    ["g", "good", () => decide(1)],
    ["b", "bad", () => decide(0)],
    [" ", "good or bad, whichever it is not (also a click)", toggle],
    ["p", "as proposed", () => decide("proposed")],
    ["v", "by micrograph or by class average", () => ((by.selectedIndex = (by.selectedIndex + 1) % by.length), sources())],
  ];
  return () => (grid.destroy(), views?.destroy());
}
