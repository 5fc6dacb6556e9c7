// An edit of the project: what its file says, what is proposed, and decisions about it. A decision is written at once. When
// the file has changed meanwhile, rows that do not conflict are merged; about those that do the user decides.

import { ApiError, getJson, post } from "./api.js";
import { ask, complain, h, plural, say } from "./dom.js";

export class Edit {
  // proposal: rows by key, where the page has them already (many particles)
  constructor(name, proposal = null) {
    this.name = name;
    this.proposal = proposal;
    this.given = proposal !== null;
    this.rows = {};
    this.hash = "";
    this.listeners = [];
    this.queue = Promise.resolve();
    this.pending = []; // decisions that the server has not answered yet: they stay in sight meanwhile
  }

  async load() {
    this.take(await getJson(`/api/edits/${this.name}${this.given ? "?brief" : ""}`));
  }

  take(state) {
    this.rows = { ...state.rows };
    for (const changes of this.pending) this.apply(changes);
    this.hash = state.hash;
    if (state.proposal) this.proposal = state.proposal;
    this.problem = state.problem;
    this.strangers = state.strangers;
    this.former = state.former;
    this.undoable = state.undo;
    this.redoable = state.redo;
    for (const listener of this.listeners) listener();
  }

  value(key) {
    return this.rows[key] ?? this.proposal[key];
  }

  decided(key) {
    return this.rows[key] !== undefined && this.rows[key] !== this.proposal[key];
  }

  // wanted: values by key; a value that is the proposed one needs no row.
  decide(wanted, what) {
    const changes = [];
    for (const [key, value] of Object.entries(wanted)) {
      const now = value === this.proposal[key] ? null : value;
      const was = this.rows[key] ?? null;
      if (now === was || (now === null && was === this.proposal[key])) continue;
      changes.push([key, was, now]);
    }
    if (!changes.length) return Promise.resolve();
    this.apply(changes);
    this.pending.push(changes);
    for (const listener of this.listeners) listener();
    return this.line(() => this.save(changes, what), changes);
  }

  apply(changes) {
    for (const [key, , now] of changes) {
      if (now === null) delete this.rows[key];
      else this.rows[key] = now;
    }
  }

  answered(changes) {
    this.pending = this.pending.filter((other) => other !== changes);
  }

  undo() {
    return this.line(() => this.back("undo"));
  }

  redo() {
    return this.line(() => this.back("redo"));
  }

  mend() {
    return this.line(async () => {
      await post(`/api/edits/${this.name}`, { action: "mend" });
      await this.load();
      changed();
    });
  }

  // Decisions go to the server one after the other.
  line(action, changes = null) {
    this.queue = this.queue.then(action).catch(async (error) => {
      this.answered(changes);
      complain(error);
      if (!(error instanceof ApiError && error.status === 0)) await this.load().catch(() => {});
    });
    return this.queue;
  }

  async save(changes, what) {
    try {
      const answer = await post(`/api/edits/${this.name}`, { base: this.hash, changes, what });
      this.answered(changes);
      await this.load();
      changed();
      say([what, ...answer.followed, ...answer.warnings].join(" · "), answer.warnings.length > 0);
    } catch (error) {
      if (error.status !== 409) throw error;
      await this.merge(changes, what, error.content);
    }
  }

  async merge(changes, what, { conflicts, theirs }) {
    const inConflict = new Set(conflicts.map((conflict) => conflict.key));
    const clear = changes.filter(([key]) => !inConflict.has(key));
    let mine = false;
    if (conflicts.length) {
      const rows = conflicts.slice(0, 12).map(({ key, yours, theirs: other }) =>
        h("tr", {}, h("td", {}, key), h("td", { class: "number" }, yours ?? "as proposed"), h("td", { class: "number" }, other ?? "as proposed")),
      );
      const head = h("tr", {}, ["Row", "You", "In the file now"].map((text) => h("th", {}, text)));
      mine = await ask(
        `edits/${this.name}.star changed in the meantime`,
        [
          h("p", {}, `${plural(conflicts.length, "row")} were decided otherwise elsewhere. Nothing of yours has been written yet.`),
          h("table", {}, h("thead", {}, head), h("tbody", {}, rows)),
        ],
        [["Leave the file as it is", false], ["Write mine", true]],
      );
    }
    this.answered(changes);
    this.take({ ...theirs, proposal: null });
    const agreed = changes.filter(([key]) => mine || !inConflict.has(key)).map(([key, , now]) => [key, theirs.rows[key] ?? null, now]);
    const open = agreed.filter(([, was, now]) => was !== now);
    if (open.length) {
      await post(`/api/edits/${this.name}`, { base: this.hash, changes: open, what });
      await this.load();
    }
    changed();
    const kept = conflicts.length - (mine ? conflicts.length : 0);
    say(
      `edits/${this.name}.star had changed: ${plural(mine ? changes.length : clear.length, "decision")} of yours merged` +
        (kept ? `, ${plural(kept, "row")} left as in the file` : ""),
    );
  }

  async back(action) {
    try {
      const answer = await post(`/api/edits/${this.name}`, { action });
      await this.load();
      changed();
      say(answer.what);
    } catch (error) {
      if (error.status === 409) this.take({ ...error.content.theirs, proposal: null });
      throw error;
    }
  }
}

function changed() {
  document.dispatchEvent(new Event("edited"));
}

// Undo, redo, and the notice about a file that the workflow would refuse.
export function editTools(edit) {
  const undo = h("button", { type: "button", onclick: () => edit.undo() }, "Undo");
  const redo = h("button", { type: "button", onclick: () => edit.redo() }, "Redo");
  const notice = h("div", { class: "notice", role: "alert" });
  const update = () => {
    undo.disabled = !edit.undoable;
    redo.disabled = !edit.redoable;
    undo.title = edit.undoable ? `${edit.undoable.what} (${edit.undoable.who}, ${edit.undoable.when}) – Ctrl+Z` : "nothing to undo";
    redo.title = edit.redoable ? `${edit.redoable.what} – Ctrl+Shift+Z` : "nothing to redo";
    notice.classList.toggle("hide", !edit.problem);
    const mend = h("button", { type: "button", onclick: () => edit.mend() }, "Mend");
    notice.replaceChildren(h("span", {}, `The workflow would refuse edits/${edit.name}.star: ${edit.problem}`), edit.strangers?.length ? mend : "");
  };
  edit.listeners.push(update);
  update();
  const keys = (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return false;
    event.preventDefault();
    if (event.shiftKey) edit.redo();
    else edit.undo();
    return true;
  };
  return { buttons: [undo, redo], notice, keys };
}
