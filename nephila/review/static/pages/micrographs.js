// Micrographs with their spectra: sort by fit, keep or drop.

import { getJson } from "../api.js";
import { ask, fixed, h, plural, short } from "../dom.js";
import { Edit, editTools } from "../edits.js";
import { Grid, tile } from "../grid.js";

const SIDE = 145;
const SORTS = [
  ["order", "order of the list", null, 1],
  ["resolution", "rings end at, worst first", "resolution", -1],
  ["merit", "correlation of the rings, worst first", "merit", 1],
  ["gap", "lead of the fit, least first", "gap", 1],
  ["defocus", "defocus", "defocus", 1],
  ["astigmatism", "astigmatism, largest first", "astigmatism", -1],
  ["anisotropy", "drift, largest first", "anisotropy", -1],
  ["ice", "ice ring, largest first", "ice", -1],
  ["foreign", "contamination, largest first", "foreign", -1],
  ["picked", "picks, fewest first", "picked", 1],
];
const FILTERS = [["all", "all"], ["kept", "kept"], ["dropped", "dropped"], ["decided", "decided by you"]];

export async function show(root, context) {
  const [data, edit] = [await getJson("/api/micrographs"), new Edit("sel_micrograph")];
  await edit.load();
  data.defocus = data.defocusU.map((u, i) => (u === null || data.defocusV[i] === null ? null : (u + data.defocusV[i]) / 2));
  data.astigmatism = data.defocusU.map((u, i) => (u === null || data.defocusV[i] === null ? null : u - data.defocusV[i]));
  const albums = context.project.albums;
  const tools = editTools(edit);
  let order = [];

  const grid = new Grid({
    label: "Micrographs", width: data.images ? 2 * SIDE + 6 : SIDE + 4, height: SIDE + 46, count: 0,
    make: () => h("div", { class: "card" }, h("div", { class: "pair" }, h("div", { class: "thumb" }), h("div", { class: "thumb" })), h("div", { class: "caption" }, h("b"), h("span", { class: "quiet" }))),
    show: (cell, k) => {
      const i = order[k];
      const [image, spectrum] = cell.firstChild.children;
      if (data.images) tile(image, albums.micrographs, "micrographs", 0, i, data.imageVersion, SIDE);
      else image.classList.add("hide");
      tile(spectrum, albums.spectra, "spectra", 0, i, data.spectrumVersion, SIDE);
      const name = data.names[i];
      const [title, line] = cell.lastChild.children;
      title.textContent = short(name);
      line.textContent = `${fixed(data.defocus[i], 0)} Å · rings to ${fixed(data.resolution?.[i], 1)} Å`;
      const kept = edit.value(name) === 1;
      cell.classList.toggle("off", !kept);
      cell.classList.toggle("decided", edit.decided(name));
      cell.setAttribute("aria-label", `${short(name)}, ${kept ? "kept" : "dropped"}, ${line.textContent}`);
    },
    onAt: () => detail(),
    onEnter: () => enlarge(),
    onChoose: () => count(),
  });

  const sort = h("select", { onchange: () => arrange(), "aria-label": "Sort by" }, SORTS.filter(([, , column]) => !column || data[column]).map(([value, label]) => h("option", { value }, label)));
  const filter = h("select", { onchange: () => arrange(), "aria-label": "Show" }, FILTERS.map(([value, label]) => h("option", { value }, label)));
  const counter = h("span", { class: "badge", role: "status" });
  const panel = h("aside", { class: "panel side", "aria-label": "The micrograph" });

  function arrange() {
    const [, , column, sign] = SORTS.find(([value]) => value === sort.value);
    const shown = { all: () => true, kept: (n) => edit.value(n) === 1, dropped: (n) => edit.value(n) !== 1, decided: (n) => edit.decided(n) }[filter.value];
    order = data.names.map((_, i) => i).filter((i) => shown(data.names[i]));
    if (column) order.sort((a, b) => sign * ((data[column][a] ?? Infinity * sign) - (data[column][b] ?? Infinity * sign)) || a - b);
    grid.set(order.length);
    grid.element.scrollTop = 0;
    grid.at = 0;
    grid.refresh();
    detail();
    count();
  }

  function count() {
    const kept = data.names.filter((name) => edit.value(name) === 1).length;
    const chosen = grid.chosen.size ? ` · ${grid.chosen.size} chosen` : "";
    counter.textContent = `${kept} of ${data.names.length} kept${chosen}`;
  }

  function decide(value) {
    const names = grid.subjects().map((k) => data.names[order[k]]);
    if (!names.length) return;
    const one = names.length === 1 ? short(names[0]) : plural(names.length, "micrograph");
    const what = { 1: `Kept ${one}`, 0: `Dropped ${one}`, proposed: `${one}: as proposed` }[value];
    edit.decide(Object.fromEntries(names.map((name) => [name, value === "proposed" ? edit.proposal[name] : value])), what);
    if (names.length === 1 && grid.at + 1 < grid.count) grid.go(grid.at + 1);
  }

  function toggle() {
    const name = data.names[order[grid.at]];
    if (name) decide(edit.value(name) === 1 ? 0 : 1);
  }

  function detail() {
    const i = order[grid.at];
    if (i === undefined) return panel.replaceChildren(h("p", { class: "quiet" }, "No micrograph to show."));
    const name = data.names[i];
    const kept = edit.value(name) === 1;
    const rows = [
      ["Defocus U / V", `${fixed(data.defocusU[i], 0)} / ${fixed(data.defocusV[i], 0)} Å`],
      ["Astigmatism", `${fixed(data.astigmatism[i], 0)} Å at ${fixed(data.angle[i], 0)}°`],
      ["Standard error", data.error && `${fixed(data.error[i], 0)} Å`],
      ["Rings explained to", data.resolution && `${fixed(data.resolution[i], 1)} Å`],
      ["Correlation of the rings", data.merit && fixed(data.merit[i], 2)],
      ["Lead over another defocus", data.gap && fixed(data.gap[i], 0)],
      ["Drift (ring anisotropy)", data.anisotropy && fixed(data.anisotropy[i], 2)],
      ["Ice ring", data.ice && fixed(data.ice[i], 2)],
      ["Contamination", data.foreign && `${fixed(100 * (data.foreign[i] ?? 0), 0)} %`],
      ["Picked / selected", `${data.picked?.[i] ?? "–"} / ${data.selected?.[i] ?? "–"}`],
    ].filter(([, value]) => value);
    panel.replaceChildren(
      h("h2", {}, short(name)),
      h("p", {}, h("span", { class: `badge ${kept ? "" : "bad"}` }, kept ? "kept" : "dropped"), " ", h("span", { class: "quiet" }, edit.decided(name) ? "by you" : "as proposed")),
      data.proposed[i] ? "" : h("p", { class: "quiet" }, `Proposed for dropping: ${data.reason[i]}`),
      h("dl", {}, rows.map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)])),
      h("div", { class: "row" },
        h("button", { type: "button", onclick: () => decide(1) }, "Keep ", h("kbd", {}, "k")),
        h("button", { type: "button", onclick: () => decide(0) }, "Drop ", h("kbd", {}, "d")),
        h("button", { type: "button", onclick: () => decide("proposed") }, "As proposed ", h("kbd", {}, "p")),
        h("button", { type: "button", onclick: enlarge }, "Look closer ", h("kbd", {}, "Enter")),
      ),
    );
  }

  async function enlarge() {
    const i = order[grid.at];
    if (i === undefined) return;
    const parts = [];
    if (data.images) {
      const canvas = h("canvas", { width: 520, height: 520, role: "img", "aria-label": "The micrograph with its picks" });
      parts.push(canvas);
      drawMicrograph(canvas, i);
    }
    const fit = h("img", { src: `/picture/fit/${i}`, alt: "Spectrum and profile with their fit", width: 600 });
    fit.addEventListener("error", () => fit.replaceWith(h("p", { class: "quiet" }, "There is no figure of the fit.")));
    parts.push(fit);
    await ask(short(data.names[i]), h("div", { class: "row" }, parts));
  }

  edit.listeners.push(() => (grid.refresh(), detail(), count()));
  root.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, "Micrographs"), counter, h("label", {}, "Sort by ", sort), h("label", {}, "Show ", filter), h("span", { class: "grow" }), tools.buttons),
    tools.notice,
    h("div", { class: "columns" }, grid.element, panel),
  );
  arrange();
  grid.element.focus();
  context.tools = [tools.keys];
  context.keys = [
    ["k", "keep", () => decide(1)],
    ["d", "drop", () => decide(0)],
    [" ", "keep or drop, whichever it is not", toggle],
    ["p", "as proposed", () => decide("proposed")],
    ["s", "next way to sort", () => ((sort.selectedIndex = (sort.selectedIndex + 1) % sort.length), arrange())],
  ];
  return () => grid.destroy();
}

async function drawMicrograph(canvas, i) {
  const image = new Image();
  const loaded = new Promise((resolve) => image.addEventListener("load", resolve));
  image.src = `/picture/micrograph/${i}`;
  const [picks] = await Promise.all([getJson(`/api/picks/${i}`), loaded]);
  canvas.height = Math.round((canvas.width * image.naturalHeight) / image.naturalWidth);
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  pen.strokeStyle = "#56b4e9";
  pen.lineWidth = 1.5;
  picks.x.forEach((x, k) => {
    pen.beginPath();
    pen.arc(x * canvas.width, picks.y[k] * canvas.height, (picks.diameter / 2) * canvas.width, 0, 2 * Math.PI);
    pen.stroke();
  });
}
