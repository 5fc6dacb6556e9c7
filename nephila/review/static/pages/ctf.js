// A micrograph's CTF by hand: sliders over the measured rings and profile; what they say can take the place of the fit.

import { getJson } from "../api.js";
import { complain, fixed, h, plural, short, svg } from "../dom.js";
import { Edit, editTools } from "../edits.js";

const SIDE = 420;
const WIDTH = 640;
const HEIGHT = 260;
const EDGE = { left: 16, right: 16, top: 14, bottom: 30 };
const ANGLES = Array.from({ length: 18 }, (_, i) => (i * Math.PI) / 18);

// An edit's row, "U V angle", as sliders have it; no fit: null.
export function parse(text) {
  const [u, v, angle] = text.split(" ").map(Number);
  return u > 0 ? { defocus: (u + v) / 2, astigmatism: u - v, angle } : null;
}

const round = (value) => Number(value.toFixed(1));
const written = ({ defocus, astigmatism, angle }) => `${round(defocus + astigmatism / 2)} ${round(defocus - astigmatism / 2)} ${round(angle)}`;

export async function show(root, context) {
  const edit = new Edit("defocus");
  const [data, micrographs, profiles] = await Promise.all([getJson("/api/optics"), getJson("/api/micrographs"), getJson("/api/profiles"), edit.load()]);
  const tools = editTools(edit);
  const { k2, k4, constant } = data.optics;
  const fit = { defocus: 0, astigmatism: 0, angle: 0 };
  const drafts = new Map(); // sliders that were moved and are not saved, by micrograph
  let at = 0;
  let picture = null;
  let measured = null; // the picture's grey levels, each with k^2 and its direction
  const name = () => micrographs.names[at];

  const canvas = h("canvas", { class: "rings", width: SIDE, height: SIDE, role: "img", "aria-label": "Left half: measured spectrum; right half: CTF squared of the sliders" });
  const plot = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "Measured profile and CTF squared of the sliders, averaged over directions" });
  const facts = h("dl");
  const chosen = h("select", { "aria-label": "Micrograph", onchange: () => open(chosen.selectedIndex) }, micrographs.names.map((each) => h("option", {}, short(each))));
  const state = h("span", { class: "badge", role: "status" });
  const counter = h("span", { class: "badge" });
  const save = h("button", { type: "button", class: "main", onclick: () => store() }, "Save this fit ", h("kbd", {}, "s"));
  const sliders = {};
  const slider = (key, label, min, max, step, unit) => {
    const output = h("output", { class: "number" });
    const input = h("input", { type: "range", min, max, step, "aria-label": label, oninput: () => moved(key, Number(input.value)) });
    sliders[key] = () => ((input.value = fit[key]), (output.textContent = `${fixed(fit[key], 0)} ${unit}`));
    return [h("span", {}, label), input, output];
  };

  const defocusAt = (theta) => fit.defocus + 0.5 * fit.astigmatism * Math.cos(2 * (theta - (fit.angle * Math.PI) / 180));
  const ctf2 = (defocus, kk) => Math.sin(k2 * defocus * kk - k4 * kk * kk + constant) ** 2;
  const average = (k) => ANGLES.reduce((sum, theta) => sum + ctf2(defocusAt(theta), k * k), 0) / ANGLES.length;

  // Sliders that nobody moved stand where the edit, or else the fit, has them; without a fit in the middle of the range.
  function settle() {
    const start = drafts.get(name()) ?? parse(edit.value(name())) ?? { defocus: (data.range[0] + data.range[1]) / 2, astigmatism: 0, angle: 0 };
    Object.assign(fit, start);
    draw();
  }

  function moved(key, value) {
    fit[key] = value;
    drafts.set(name(), { ...fit });
    draw();
  }

  function store() {
    const mine = name();
    if (!drafts.has(mine)) return;
    drafts.delete(mine);
    const text = written(fit);
    const [u, v, angle] = text.split(" ");
    edit.decide({ [mine]: text }, `${short(mine)} by hand: ${u} / ${v} Å at ${angle}°`);
    settle();
  }

  function back() {
    drafts.delete(name());
    edit.decide({ [name()]: edit.proposal[name()] }, `${short(name())}: as fitted`);
    settle();
  }

  async function open(index) {
    at = Math.max(0, Math.min(micrographs.names.length - 1, index));
    chosen.selectedIndex = at;
    picture = measured = null;
    settle();
    const image = new Image();
    const mine = at;
    image.addEventListener("load", () => mine === at && ((picture = image), (measured = readRings(image)), draw()));
    image.addEventListener("error", () => complain(new Error("the spectrum is not there: was it cleaned away?")));
    image.src = `/picture/spectrum/${at}?v=${micrographs.spectrumVersion}`;
  }

  // To where the fitted rings end, or else to the edge; every second row and column is enough.
  function readRings(image) {
    const pen = h("canvas", { width: SIDE, height: SIDE }).getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0, SIDE, SIDE);
    const { data: grey } = pen.getImageData(0, 0, SIDE, SIDE);
    const end = Math.min(0.98, (1.15 * data.resolution) / (micrographs.resolution?.[at] || data.resolution));
    const found = [];
    for (let row = 0; row < SIDE; row += 2) {
      for (let column = SIDE / 2; column < SIDE; column += 2) {
        const [x, y] = [(column + 0.5 - SIDE / 2) / (SIDE / 2), (row + 0.5 - SIDE / 2) / (SIDE / 2)];
        const radius = Math.hypot(x, y);
        if (radius > 0.08 && radius < end) found.push([grey[4 * (row * SIDE + column)], (radius / data.resolution) ** 2, Math.atan2(y, x)]);
      }
    }
    return found;
  }

  // Correlation of the measured rings with those of the sliders, in all directions: it depends on the angle too.
  function agreement() {
    let [n, a, b, aa, bb, ab] = [0, 0, 0, 0, 0, 0];
    for (const [value, kk, theta] of measured) {
      const wanted = ctf2(defocusAt(theta), kk);
      n += 1;
      a += value;
      b += wanted;
      aa += value * value;
      bb += wanted * wanted;
      ab += value * wanted;
    }
    return (ab - (a * b) / n) / Math.sqrt((aa - (a * a) / n) * (bb - (b * b) / n) || 1);
  }

  function drawRings() {
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#808080";
    pen.fillRect(0, 0, SIDE, SIDE);
    if (picture) pen.drawImage(picture, 0, 0, SIDE, SIDE);
    const half = SIDE / 2;
    const image = pen.createImageData(half, SIDE);
    for (let row = 0; row < SIDE; row += 1) {
      for (let column = 0; column < half; column += 1) {
        const [x, y] = [(column + 0.5) / half, (row + 0.5 - half) / half];
        const radius = Math.hypot(x, y);
        const kk = (radius / data.resolution) ** 2;
        const shade = radius > 1 || radius < 0.06 ? 128 : 255 * ctf2(defocusAt(Math.atan2(y, x)), kk);
        const p = 4 * (row * half + column);
        image.data[p] = image.data[p + 1] = image.data[p + 2] = shade;
        image.data[p + 3] = 255;
      }
    }
    pen.putImageData(image, half, 0);
  }

  function correlation(ring) {
    // faint rings are mostly noise: each point counts by the square of its envelope
    const pairs = ring.heights.map((height, i) => [height, average(profiles.frequency[ring.first + i]), ring.weights[i] ** 2]);
    const all = pairs.reduce((sum, pair) => sum + pair[2], 0);
    const mean = [0, 1].map((k) => pairs.reduce((sum, pair) => sum + pair[2] * pair[k], 0) / all);
    const moment = (a, b) => pairs.reduce((sum, pair) => sum + pair[2] * (pair[a] - mean[a]) * (pair[b] - mean[b]), 0);
    return moment(0, 1) / Math.sqrt(moment(0, 0) * moment(1, 1) || 1);
  }

  function drawProfile() {
    const ring = profiles.rings[name()];
    if (!ring) return plot.replaceChildren(svg("text", { x: 20, y: 30 }, "There is no profile: the micrograph has no spectrum."));
    const last = profiles.frequency[ring.first + ring.heights.length - 1];
    const x = (k) => EDGE.left + (k / last) * (WIDTH - EDGE.left - EDGE.right);
    const y = (v) => HEIGHT - EDGE.bottom - ((Math.max(-0.3, Math.min(1.6, v)) + 0.3) / 1.9) * (HEIGHT - EDGE.top - EDGE.bottom);
    const line = (points, attributes) => svg("polyline", { points: points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" "), fill: "none", ...attributes });
    const smooth = ring.heights.map((_, i, all) => ((all[i - 1] ?? all[i]) + all[i] + (all[i + 1] ?? all[i])) / 3);
    const steps = Array.from({ length: 400 }, (_, i) => ((i + 1) / 400) * last);
    plot.replaceChildren(
      svg("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: HEIGHT - EDGE.bottom, y2: HEIGHT - EDGE.bottom }),
      ...[1, 2, 3, 4].map((i) => svg("text", { x: x((i / 4) * last), y: HEIGHT - 12, "text-anchor": i === 4 ? "end" : "middle" }, `${(4 / (i * last)).toFixed(1)} Å`)),
      line(smooth.map((v, i) => [x(profiles.frequency[ring.first + i]), y(v)]), { stroke: "var(--quiet)", "stroke-width": 1.2 }),
      line(steps.map((k) => [x(k), y(average(k))]), { stroke: "var(--accent)", "stroke-width": 1.8 }),
    );
    return correlation(ring);
  }

  function draw() {
    for (const update of Object.values(sliders)) update();
    drawRings();
    const now = drawProfile();
    const fitted = parse(edit.proposal[name()]);
    const byHand = micrographs.names.filter((each) => edit.decided(each));
    counter.textContent = byHand.length ? `${plural(byHand.length, "micrograph")} by hand` : "none by hand";
    [...chosen.options].forEach((option, i) => (option.textContent = short(micrographs.names[i]) + (edit.decided(micrographs.names[i]) ? " •" : "")));
    save.disabled = !drafts.has(name());
    state.textContent = drafts.has(name()) ? "moved, not saved" : edit.decided(name()) ? "by hand" : fitted ? "as fitted" : "no fit";
    state.classList.toggle("warn", drafts.has(name()));
    facts.replaceChildren(...[
      ["Sliders: defocus U / V", `${fixed(fit.defocus + fit.astigmatism / 2, 0)} / ${fixed(fit.defocus - fit.astigmatism / 2, 0)} Å`],
      ["Correlation with the spectrum", measured?.length ? h("span", { id: "agreement-2d" }, fixed(agreement(), 3)) : "–"],
      ["Correlation with the profile", now === undefined ? "–" : h("span", { id: "agreement" }, fixed(now, 3))],
      ["The workflow's fit: U / V", fitted ? `${fixed(fitted.defocus + fitted.astigmatism / 2, 0)} / ${fixed(fitted.defocus - fitted.astigmatism / 2, 0)} Å at ${fixed(fitted.angle, 0)}°` : "none"],
      ["Its rings end at", `${fixed(micrographs.resolution?.[at], 1)} Å`],
    ].flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));
  }

  const step = (key, by) => () => moved(key, fit[key] + by);
  edit.listeners.push(settle);
  root.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, "CTF"), h("label", {}, "Micrograph ", chosen), state, save,
      h("button", { type: "button", onclick: back }, "As fitted ", h("kbd", {}, "p")), counter, h("span", { class: "grow" }), tools.buttons),
    tools.notice,
    h("div", { class: "columns" },
      h("div", { class: "panel" }, canvas, h("p", { class: "quiet" }, `Left measured, right CTF² of the sliders; the edge is ${fixed(data.resolution, 1)} Å.`)),
      h("div", { class: "panel fill stack" }, plot,
        h("div", { class: "controls" }, slider("defocus", "Defocus", data.range[0], data.range[1], 10, "Å"), slider("astigmatism", "Astigmatism", 0, data.astigmatism, 10, "Å"), slider("angle", "Angle", -90, 90, 1, "°")),
        facts,
        h("p", { class: "quiet" }, "A saved fit goes on in place of the workflow's (edits/defocus.star); picks are not searched again. Where many fits are wrong, narrow the search (ctf.min_defocus, ctf.max_defocus in config.yaml); where the rings are bad, drop the micrograph."))),
  );
  context.tools = [tools.keys];
  context.keys = [
    ["j", "next micrograph", () => open(at + 1)],
    ["i", "micrograph before", () => open(at - 1)],
    ["+", "defocus up by 50 Å", step("defocus", 50)],
    ["-", "defocus down by 50 Å", step("defocus", -50)],
    ["s", "save this fit", store],
    ["p", "as fitted", back],
  ];
  await open(0);
  return () => {};
}
