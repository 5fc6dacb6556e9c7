// The run: stages, jobs, time left, logs.

import { getJson, getText } from "../api.js";
import { ask, complain, duration, h, plural } from "../dom.js";

export async function show(root, context) {
  const body = h("div", { class: "columns" });
  const state = h("span", { class: "badge", role: "status" });
  let timer = 0;
  let stopped = false;

  async function openLog(name) {
    try {
      const text = await getText(`/api/log?name=${encodeURIComponent(name)}`);
      await ask(name, h("pre", { class: "log", tabindex: "0" }, text || "(empty)"));
    } catch (error) {
      complain(error);
    }
  }

  const logButton = (name) => h("button", { type: "button", onclick: () => openLog(name), "aria-label": `Log ${name}` }, "Log");
  const clock = (seconds) => new Date(1000 * seconds).toLocaleString();

  function draw(run) {
    const label = run.running ? "running" : run.failed.length ? "stopped after an error" : run.ended ? "ended" : run.locked ? "died, or runs elsewhere: nephila recover" : "not running";
    state.textContent = label;
    state.className = `badge ${run.failed.length ? "bad" : run.running || run.ended ? "" : "warn"}`;
    const share = run.total ? run.done / run.total : 0;
    const stages = run.stages.map(({ name, planned, finished }) =>
      h("tr", {}, h("td", {}, name.replace("_", " ")), h("td", { class: "meter" }, bar(planned ? finished / planned : 1, `${name}: ${finished} of ${planned} jobs`)), h("td", { class: "number" }, `${finished} / ${Math.max(planned, finished)}`)));
    const jobs = run.jobs.map(({ message, since, log, progress }) =>
      h("tr", {}, h("td", {}, message), h("td", { class: "number" }, duration(run.now - since)),
        h("td", { class: "meter" }, progress ? bar(progress.done / Math.max(progress.total, 1), `${message}: ${progress.done} of ${progress.total} ${progress.what}`) : ""),
        h("td", { class: "number" }, progress ? `${progress.done} of ${progress.total} ${progress.what}, ${speed(progress.rate)}` : h("span", { class: "quiet" }, log ? "" : "starting")),
        h("td", { class: "number" }, progress ? duration(progress.left) : "–"),
        h("td", {}, log ? logButton(log) : "")));
    const failed = run.failed.map(({ rule, log }) => h("tr", {}, h("td", {}, rule), h("td", {}, log ? logButton(log) : "")));
    const wildcards = (record) => Object.values(record.wildcards).join(" ");
    const records = run.records.map((record) =>
      h("tr", {}, h("td", {}, `${record.rule} ${wildcards(record)}`), h("td", { class: "number" }, `${record.wall} s`), h("td", { class: "number" }, `${record.cpu} s`), h("td", { class: "number" }, `${record.memory} MB`), h("td", {}, logButton(record.log))));
    const head = (...names) => h("thead", {}, h("tr", {}, names.map((name, i) => h("th", { class: i ? "number" : "" }, name))));
    const focused = document.activeElement?.getAttribute?.("aria-label");
    const top = body.querySelector(".records")?.scrollTop ?? 0;
    body.replaceChildren(
      h("div", { class: "fill stack" },
        h("div", { class: "panel" },
          h("p", {}, h("b", {}, `${run.done} of ${plural(run.total, "job")}`), ` · begun ${clock(run.started)}`, run.running ? (run.left ? ` · about ${duration(run.left)} left` : "") : ` · last sign of life ${clock(run.last)}`),
          bar(share, "The whole run")),
        failed.length ? h("div", { class: "panel" }, h("h2", {}, "Failed"), h("table", {}, h("tbody", {}, failed))) : "",
        run.running ? h("div", { class: "panel" }, h("h2", {}, "Running now"), jobs.length ? h("table", { class: "now" }, head("Job", "For", "", "Done", "Left", ""), h("tbody", {}, jobs)) : h("p", { class: "quiet" }, "No job at this moment.")) : "",
        h("div", { class: "panel fill" }, h("h2", {}, "Stages"), h("table", {}, h("tbody", {}, stages)))),
      h("div", { class: "panel records fill" }, h("h2", {}, "Latest jobs"), h("table", {}, head("Job", "Time", "CPU", "Memory", ""), h("tbody", {}, records))),
    );
    body.querySelector(".records").scrollTop = top;
    if (focused) body.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  async function again() {
    try {
      draw(await getJson("/api/run"));
    } catch (error) {
      complain(error);
    }
    if (!stopped) timer = setTimeout(again, document.hidden ? 15000 : 3000);
  }

  root.replaceChildren(h("div", { class: "bar" }, h("h1", {}, "Run"), state), body);
  await again();
  context.keys = [];
  context.tools = [];
  return () => ((stopped = true), clearTimeout(timer));
}

const speed = (rate) => (rate >= 1 ? `${rate.toPrecision(2)} a second` : `${(60 * rate).toPrecision(2)} a minute`);

function bar(share, label) {
  const fill = h("div");
  fill.style.width = `${(100 * Math.min(1, share)).toFixed(1)}%`;
  return h("div", { class: "bar-fill", role: "progressbar", "aria-label": label, "aria-valuenow": Math.round(100 * share), "aria-valuemin": 0, "aria-valuemax": 100 }, fill);
}
