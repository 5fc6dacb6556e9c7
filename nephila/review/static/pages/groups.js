// Defocus groups: micrographs to move between groups, their profiles over each other, how far a group's CTF stays in phase.

import { getJson } from "../api.js";
import { ask, complain, fixed, h, plural, short, svg } from "../dom.js";
import { Edit, editTools } from "../edits.js";

const WIDTH = 560;
const HEIGHT = 300;
const EDGE = { left: 40, right: 14, top: 14, bottom: 34 };

// CTF^2 at a spatial frequency (1/A) for a defocus in A.
export function ctf2({ k2, k4, constant }, defocus, k) {
  return Math.sin(k2 * defocus * k * k - k4 * k ** 4 + constant) ** 2;
}

export async function show(root, context) {
  const edit = new Edit("def_sort");
  await edit.load();
  let data = await getJson("/api/groups");
  const profiles = await getJson("/api/profiles");
  const tools = editTools(edit);
  let current = data.groups[0].group;
  let lit = null;

  const counter = h("span", { class: "badge", role: "status" });
  const board = h("div", { class: "board", role: "group", "aria-label": "Defocus groups" });
  const plot = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const facts = h("div", {});
  const members = (group) => data.micrographs.filter((m) => m.group === group);

  async function reload() {
    try {
      data = await getJson("/api/groups");
      if (!data.groups.some(({ group }) => group === current)) current = data.groups[0].group;
      draw();
    } catch (error) {
      complain(error);
    }
  }

  function move(name, group) {
    const micrograph = data.micrographs.find((m) => m.name === name);
    if (!micrograph || micrograph.group === group || !(group >= 1)) return;
    micrograph.group = group;
    lit = name;
    current = group;
    return edit.decide({ [name]: group }, `${short(name)} to group ${group}`);
  }

  const fresh = () => Math.max(...data.groups.map(({ group }) => group)) + 1;

  function neighbour(name, by) {
    const numbers = data.groups.map(({ group }) => group);
    const at = numbers.indexOf(data.micrographs.find((m) => m.name === name).group);
    move(name, numbers[Math.max(0, Math.min(numbers.length - 1, at + by))]);
  }

  async function moveTo(name) {
    const from = data.micrographs.find((m) => m.name === name).group;
    const options = data.groups.map(({ group, defocus }) => h("option", { value: group, selected: group === from }, `${group} (${fixed(defocus, 0)} Å)`));
    const select = h("select", { "aria-label": "Group" }, options, h("option", { value: fresh() }, `${fresh()} (a new one)`));
    const answer = await ask(`Move ${short(name)} to group`, select, [["Cancel", false], ["Move", true]]);
    if (answer) move(name, Number(select.value));
  }

  function chip(m) {
    const button = h("button", {
      type: "button", class: `chip${m.group === m.proposed ? "" : " moved"}${m.name === lit ? " lit" : ""}`, "data-name": m.name,
      "aria-label": `${short(m.name)}, ${fixed(m.defocus, 0)} Å, group ${m.group}${m.group === m.proposed ? "" : `, proposed ${m.proposed}`}`,
      title: m.group === m.proposed ? m.name : `${m.name}: proposed for group ${m.proposed}`,
      onfocus: () => light(m), onmouseenter: () => light(m), onpointerdown: (event) => drag(event, m, button),
    }, h("span", {}, short(m.name)), h("span", { class: "quiet" }, fixed(m.defocus, 0)));
    return button;
  }

  function light(m) {
    if (lit === m.name && current === m.group) return;
    lit = m.name;
    current = m.group;
    for (const element of board.querySelectorAll(".chip")) element.classList.toggle("lit", element.dataset.name === lit);
    for (const element of board.querySelectorAll(".group")) element.classList.toggle("current", Number(element.dataset.group) === current);
    drawPlot();
  }

  function drag(event, m, button) {
    if (event.button !== 0) return;
    const start = [event.clientX, event.clientY];
    let ghost = null;
    let over = null;
    const follow = (next) => {
      if (!ghost && Math.hypot(next.clientX - start[0], next.clientY - start[1]) < 5) return;
      if (!ghost) {
        ghost = button.cloneNode(true);
        ghost.classList.add("ghost");
        document.body.append(ghost);
      }
      Object.assign(ghost.style, { left: `${next.clientX + 8}px`, top: `${next.clientY - 8}px` });
      over?.classList.remove("over");
      over = document.elementFromPoint(next.clientX, next.clientY)?.closest(".group") ?? null;
      over?.classList.add("over");
    };
    const end = () => {
      window.removeEventListener("pointermove", follow);
      window.removeEventListener("pointerup", end);
      window.removeEventListener("pointercancel", end);
      ghost?.remove();
      over?.classList.remove("over");
      if (ghost && over) move(m.name, Number(over.dataset.group));
    };
    window.addEventListener("pointermove", follow);
    window.addEventListener("pointerup", end);
    window.addEventListener("pointercancel", end);
  }

  function draw() {
    const focused = document.activeElement?.dataset?.name;
    counter.textContent = `${plural(data.groups.length, "group")}, ${plural(data.micrographs.length, "micrograph")}`;
    const rows = data.groups.filter(({ group }) => members(group).length);
    for (const { group, defocus } of data.micrographs) {
      if (!rows.some((row) => row.group === group)) rows.push({ group, defocus, micrographs: 1, spread: 0, worst: 0, limit: 0 });
    }
    data.groups = rows.sort((a, b) => a.group - b.group);
    if (!rows.some(({ group }) => group === current)) current = rows[0].group;
    const cards = data.groups.map((row) => {
      const mine = members(row.group);
      const particles = mine.reduce((sum, m) => sum + (data.particles[m.name] ?? 0), 0);
      return h("section", { class: `group${row.group === current ? " current" : ""}`, "data-group": row.group, "aria-label": `Group ${row.group}` },
        h("header", { onclick: () => ((current = row.group), (lit = null), draw()) }, h("h3", {}, `Group ${row.group} · ${fixed(row.defocus, 0)} Å`),
          h("div", { class: "limit quiet" }, row.limit ? `in phase to ${fixed(row.limit, 1)} Å` : row.micrographs > 1 ? "all alike" : "one micrograph", particles ? ` · ${plural(particles, "particle")}` : "")),
        mine.map(chip));
    });
    const empty = h("section", { class: "group", "data-group": fresh(), "aria-label": "A new group" }, h("h3", { class: "quiet" }, `Group ${fresh()} (new)`), h("p", { class: "quiet limit" }, "Drop a micrograph here"));
    board.replaceChildren(...cards, empty);
    if (focused) board.querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    drawPlot();
  }

  function drawPlot() {
    const row = data.groups.find(({ group }) => group === current);
    const mine = members(current).filter((m) => profiles.rings[m.name]);
    const frequencies = profiles.frequency;
    const ends = mine.map((m) => profiles.rings[m.name]).map((ring) => frequencies[ring.first + ring.heights.length - 1]);
    const last = Math.max(...ends, 0.02);
    const x = (k) => EDGE.left + (k / last) * (WIDTH - EDGE.left - EDGE.right);
    const y = (v) => HEIGHT - EDGE.bottom - ((Math.max(-0.3, Math.min(1.6, v)) + 0.3) / 1.9) * (HEIGHT - EDGE.top - EDGE.bottom);
    const line = (points, attributes) => svg("polyline", { points: points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" "), fill: "none", ...attributes });
    const measured = mine.map((m) => {
      const ring = profiles.rings[m.name];
      const smooth = ring.heights.map((_, i, all) => ((all[i - 1] ?? all[i]) + all[i] + (all[i + 1] ?? all[i])) / 3);
      const bright = m.name === lit;
      return line(smooth.map((v, i) => [x(frequencies[ring.first + i]), y(v)]), { stroke: bright ? "var(--bad)" : "var(--quiet)", "stroke-width": bright ? 2 : 0.9, opacity: bright ? 1 : 0.55 });
    });
    measured.sort((a, b) => a.getAttribute("stroke-width") - b.getAttribute("stroke-width"));
    const steps = Array.from({ length: 500 }, (_, i) => ((i + 1) / 500) * last);
    const model = line(steps.map((k) => [x(k), y(ctf2(data.optics, row.defocus, k))]), { stroke: "var(--accent)", "stroke-width": 1.6, "stroke-dasharray": "5 2" });
    const ticks = [1, 2, 3, 4].map((i) => (i / 4) * last);
    const limit = row.limit && 1 / row.limit < last ? x(1 / row.limit) : null;
    plot.setAttribute("aria-label", `Profiles of group ${current} and the CTF of its average defocus`);
    plot.replaceChildren(
      svg("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: HEIGHT - EDGE.bottom, y2: HEIGHT - EDGE.bottom }),
      ...ticks.map((k) => svg("text", { x: x(k), y: HEIGHT - EDGE.bottom + 16, "text-anchor": k === last ? "end" : "middle" }, `${(1 / k).toFixed(1)} Å`)),
      ...measured,
      model,
      ...(limit ? [svg("line", { x1: limit, x2: limit, y1: EDGE.top, y2: HEIGHT - EDGE.bottom, stroke: "var(--bad)", "stroke-dasharray": "2 3" }), svg("text", { x: limit - 4, y: EDGE.top + 10, "text-anchor": "end" }, "out of phase")] : []),
      svg("text", { x: 8, y: EDGE.top + 8 }, "rings"),
    );
    facts.replaceChildren(
      h("h2", {}, `Group ${current}`),
      h("dl", {}, [
        ["Micrographs", row.micrographs],
        ["Average defocus", `${fixed(row.defocus, 0)} Å`],
        ["Largest less smallest", `${fixed(row.spread, 0)} Å`],
        ["Largest deviation, any direction", `${fixed(row.worst, 0)} Å`],
        ["90° phase error at", row.limit ? `${fixed(row.limit, 2)} Å` : "nowhere"],
      ].map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)])),
      h("p", { class: "quiet" }, "Grey: measured rings of the group's micrographs; dashed: CTF² of its average defocus; thick: the micrograph at the cursor."),
    );
  }

  const act = (action) => () => {
    const name = document.activeElement?.dataset?.name ?? lit;
    if (name) action(name);
  };
  // membership follows the edit at once, averages and phase errors when the server has worked them out
  edit.listeners.push(() => {
    for (const m of data.micrographs) m.group = edit.value(m.name) ?? m.group;
    data.micrographs.sort((a, b) => a.group - b.group || a.defocus - b.defocus);
    draw();
  });
  const redraw = () => reload();
  document.addEventListener("edited", redraw);
  root.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, "Defocus groups"), counter, h("span", { class: "quiet" }, "Drag a micrograph, or focus it and press m"), h("span", { class: "grow" }), tools.buttons),
    tools.notice,
    h("div", { class: "columns" }, h("div", { class: "fill scroll-plain" }, board), h("div", { class: "panel profile stack" }, plot, facts)),
  );
  draw();
  context.tools = [tools.keys];
  context.keys = [
    ["m", "move the micrograph to another group", act(moveTo)],
    ["]", "to the next group", act((name) => neighbour(name, 1))],
    ["[", "to the group before", act((name) => neighbour(name, -1))],
    ["n", "to a new group", act((name) => move(name, fresh()))],
    ["p", "to the proposed group", act((name) => move(name, edit.proposal[name]))],
  ];
  return () => document.removeEventListener("edited", redraw);
}
