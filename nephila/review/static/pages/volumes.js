// Volumes: slices in three directions, the surface, two side by side, and groups to leave out.

import { getBytes, getJson } from "../api.js";
import { complain, fixed, h } from "../dom.js";
import { Edit, editTools } from "../edits.js";
import { tile } from "../grid.js";
import { Surface } from "../surface.js";

const NONE = 2; // a threshold that no correlation reaches
const PIXELS = 360;
const AXES = ["z", "y", "x"];

export async function show(root, context) {
  const data = await getJson("/api/volumes");
  const edit = context.project.pages.thresholds ? new Edit("thresh") : null;
  await edit?.load();
  const tools = edit ? editTools(edit) : { buttons: [], notice: "", keys: () => false };
  const at = { z: 0.5, y: 0.5, x: 0.5 };
  const contrast = { low: -2, high: 12 };
  let level = 4;

  const options = (none) => [none ? h("option", { value: "" }, "nothing") : null, ...data.volumes.map((volume, i) => h("option", { value: i }, volume.label))];
  const views = [view([0.42, 0.68, 0.9]), view([0.93, 0.66, 0.36])];
  const pick = views.map((each, k) => h("select", { "aria-label": k ? "Second volume" : "Volume", onchange: () => load(k) }, options(k)));

  function view(paint) {
    const canvases = AXES.map((axis) => h("canvas", { role: "img", "aria-label": `Slice across ${axis}`, tabindex: "0", onwheel: (event) => (event.preventDefault(), slide(axis, Math.sign(event.deltaY))), onkeydown: (event) => stepKeys(event, axis) }));
    const screen = h("canvas", { class: "surface", width: PIXELS, height: PIXELS, tabindex: "0", role: "img", "aria-label": "Surface; turn it with the mouse or the arrow keys, zoom with the wheel or + and -" });
    const surface = new Surface(screen, paint);
    const title = h("h2");
    const element = h("div", { class: "panel hide" }, title,
      h("div", { class: "volume" }, canvases.map((canvas, i) => h("figure", {}, canvas, h("figcaption", {}, `across ${AXES[i]}`))),
        h("figure", {}, surface.works ? screen : h("p", { class: "quiet" }, "This browser has no WebGL 2: no surface."), h("figcaption", {}, "surface"))));
    screen.addEventListener("pointerdown", (event) => {
      screen.setPointerCapture(event.pointerId);
      let last = [event.clientX, event.clientY];
      const follow = (next) => {
        turn((next.clientX - last[0]) / 120, (next.clientY - last[1]) / 120);
        last = [next.clientX, next.clientY];
      };
      screen.addEventListener("pointermove", follow);
      screen.addEventListener("pointerup", () => screen.removeEventListener("pointermove", follow), { once: true });
    });
    screen.addEventListener("wheel", (event) => (event.preventDefault(), zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1)), { passive: false });
    screen.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
      if (event.key in steps) turn(...steps[event.key]);
      else if (event.key === "+") zoom(1.1);
      else if (event.key === "-") zoom(1 / 1.1);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    return { canvases, surface, title, element, volume: null };
  }

  function turn(dx, dy) {
    for (const { surface } of views) surface.rotate(dx, dy);
  }

  function zoom(by) {
    for (const { surface } of views) {
      surface.zoom = Math.max(0.5, Math.min(8, surface.zoom * by));
      surface.later();
    }
  }

  function stepKeys(event, axis) {
    const by = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    slide(axis, by);
  }

  async function load(k) {
    const each = views[k];
    const index = pick[k].value;
    each.element.classList.toggle("hide", index === "");
    if (index === "") {
      each.volume = null;
      return;
    }
    const listed = data.volumes[index];
    each.title.textContent = `${listed.label} …`;
    try {
      const bytes = await getBytes(`/data/volume/${index}?v=${listed.version}`);
      const head = new DataView(bytes);
      const [side, pixel, low, high, mean, deviation] = [head.getUint32(0, true), ...[4, 8, 12, 16, 20].map((p) => head.getFloat32(p, true))];
      each.volume = { side, pixel, low, high, mean, deviation, values: new Uint8Array(bytes, 24) };
      each.title.textContent = `${listed.label} `;
      each.title.append(h("span", { class: "quiet" }, `${side} × ${fixed(pixel, 2)} Å · ${listed.path}`));
      each.surface.load(each.volume.values, side);
      draw();
    } catch (error) {
      complain(error);
    }
  }

  const grey = ({ low, high, mean, deviation }, sigmas) => ((mean + sigmas * deviation - low) / (high - low)) * 255;

  function slice(canvas, volume, axis) {
    const { side: n, values } = volume;
    const k = Math.min(n - 1, Math.floor(at[axis] * n));
    const [black, white] = [grey(volume, contrast.low), grey(volume, contrast.high)];
    canvas.width = canvas.height = n;
    const pen = canvas.getContext("2d");
    const image = pen.createImageData(n, n);
    const [right, up, start] = { z: [1, n, k * n * n], y: [1, n * n, k * n], x: [n, n * n, k] }[axis];
    for (let row = 0; row < n; row += 1) {
      for (let column = 0; column < n; column += 1) {
        const v = ((values[start + column * right + (n - 1 - row) * up] - black) / (white - black)) * 255;
        const p = 4 * (row * n + column);
        image.data[p] = image.data[p + 1] = image.data[p + 2] = v;
        image.data[p + 3] = 255;
      }
    }
    pen.putImageData(image, 0, 0);
    canvas.setAttribute("aria-label", `Slice ${k + 1} of ${n} across ${axis}`);
  }

  function draw() {
    for (const { canvases, surface, volume } of views) {
      if (!volume) continue;
      AXES.forEach((axis, i) => slice(canvases[i], volume, axis));
      surface.level = grey(volume, level) / 255;
      surface.later();
    }
  }

  const ranges = {};
  function range(label, min, max, step, value, set) {
    const output = h("output", { class: "number" }, value);
    const input = h("input", { type: "range", min, max, step, value, "aria-label": label, oninput: () => (set(Number(input.value)), (output.textContent = input.value), draw()) });
    ranges[label] = [input, output];
    return [h("span", {}, label), input, output];
  }

  function slide(axis, by) {
    const n = views.find(({ volume }) => volume)?.volume.side ?? 100;
    const [input, output] = ranges[`Slice across ${axis}`];
    at[axis] = Math.max(0, Math.min(0.999, at[axis] + by / n));
    input.value = at[axis];
    output.textContent = at[axis].toFixed(2);
    draw();
  }

  // --- the groups side by side
  const strip = h("div", { class: "strip", role: "group", "aria-label": "Central slices of the groups" });
  function drawStrip() {
    if (!data.slices) return;
    strip.replaceChildren(
      ...data.groups.map((group, i) => {
        const picture = h("div", { class: "thumb" });
        tile(picture, context.project.albums.slices, "slices", 0, i, data.slices, 84);
        const out = edit && edit.value(String(group)) >= NONE;
        const button = edit && edit.proposal[String(group)] !== undefined
          ? h("button", { type: "button", "aria-pressed": String(out), "aria-label": `Leave out group ${group}`, onclick: () => leaveOut(group, !out) }, out ? "Take back" : "Leave out")
          : null;
        return h("div", { class: `group${out ? " out" : ""}` }, picture, h("div", {}, `Group ${group}`, data.resolution[group] ? ` · ${data.resolution[group]} Å` : ""), button);
      }),
    );
  }

  function leaveOut(group, out) {
    const key = String(group);
    const former = edit.former?.[key] ?? edit.proposal[key]; // what it was before it was left out
    edit.decide({ [key]: out ? NONE : former }, out ? `Left out group ${group}: threshold ${NONE}` : `Took group ${group} back: threshold ${former}`);
  }

  edit?.listeners.push(drawStrip);
  root.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, "Volumes"), h("label", {}, "Show ", pick[0]), h("label", {}, "beside ", pick[1]), h("span", { class: "grow" }), tools.buttons),
    tools.notice,
    h("div", { class: "columns" },
      h("div", { class: "fill stack scroll-plain" }, views.map(({ element }) => element), data.slices ? h("div", { class: "panel" }, h("h2", {}, "Groups: central slices, resolution at FSC 0.5"), strip) : null),
      h("div", { class: "panel side" },
        h("h2", {}, "Slices"), h("div", { class: "controls" }, AXES.map((axis) => range(`Slice across ${axis}`, 0, 0.999, 0.001, 0.5, (v) => (at[axis] = v)))),
        h("h2", {}, "Contrast, standard deviations"), h("div", { class: "controls" }, range("Black", -10, 10, 0.1, contrast.low, (v) => (contrast.low = v)), range("White", -5, 30, 0.1, contrast.high, (v) => (contrast.high = v))),
        h("h2", {}, "Surface, standard deviations"), h("div", { class: "controls" }, range("Level", 0, 20, 0.1, level, (v) => (level = v))),
        h("p", { class: "quiet" }, "A group that is left out gets a threshold that none of its particles reaches; its half volumes are in the list above."))),
  );
  drawStrip();
  const filtered = data.volumes.findIndex(({ path }) => path.endsWith("map_filtered.mrc"));
  pick[0].value = String(Math.max(0, filtered));
  await load(0);
  context.tools = [tools.keys];
  context.keys = [
    ["v", "next volume", () => ((pick[0].selectedIndex = (pick[0].selectedIndex + 1) % pick[0].length), load(0))],
    ["b", "next volume beside it", () => ((pick[1].selectedIndex = (pick[1].selectedIndex + 1) % pick[1].length), load(1))],
    ["+", "raise the level of the surface", () => shift(0.2)],
    ["-", "lower the level of the surface", () => shift(-0.2)],
  ];
  function shift(by) {
    const [input, output] = ranges.Level;
    input.value = Number(input.value) + by;
    level = Number(input.value);
    output.textContent = level.toFixed(1);
    draw();
  }
  return () => views.forEach(({ surface }) => surface.free());
}
