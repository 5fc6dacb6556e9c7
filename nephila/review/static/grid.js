// A grid of many pictures of which only those in sight exist: keyboard, click, Shift, and a box drawn with the mouse.

import { h } from "./dom.js";

const MARGIN = 6;
let grids = 0;

export class Grid {
  // options: label, width, height (of a cell), count, make() -> element, show(element, i), chosen: Set, onAt(i), onChoose(),
  //          onClick(i, event), onEnter(i)
  constructor(options) {
    Object.assign(this, { chosen: new Set(), onAt() {}, onChoose() {}, onClick() {}, onEnter() {}, many: true }, options);
    this.id = `grid${(grids += 1)}`;
    this.at = 0;
    this.anchor = 0;
    this.cells = new Map();
    this.spare = [];
    this.spacer = h("div", { class: "spacer" });
    this.element = h(
      "div",
      { class: `scroll fill ${this.class ?? ""}`, tabindex: "0", role: "listbox", "aria-label": this.label, "aria-multiselectable": this.many },
      this.spacer,
    );
    this.element.addEventListener("scroll", () => this.later(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("pointerdown", (event) => this.press(event));
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(this.element);
  }

  destroy() {
    this.watch.disconnect();
  }

  set(count) {
    this.count = count;
    this.at = Math.max(0, Math.min(this.at, count - 1));
    this.chosen.clear();
    this.clear();
    this.resize();
  }

  clear() {
    for (const cell of this.cells.values()) cell.remove();
    this.cells.clear();
    this.spare = [];
  }

  resize() {
    const inner = this.element.clientWidth - MARGIN;
    this.columns = Math.max(1, Math.floor(inner / (this.width + MARGIN)));
    this.spacer.style.height = `${Math.ceil(this.count / this.columns) * (this.height + MARGIN) + MARGIN}px`;
    this.clear();
    this.draw();
  }

  later() {
    this.frame ??= requestAnimationFrame(() => ((this.frame = null), this.draw()));
  }

  place(i) {
    return [MARGIN + (i % this.columns) * (this.width + MARGIN), MARGIN + Math.floor(i / this.columns) * (this.height + MARGIN)];
  }

  range() {
    const step = this.height + MARGIN;
    const top = this.element.scrollTop;
    const first = Math.max(0, Math.floor(top / step) - 1) * this.columns;
    const last = Math.min(this.count, (Math.ceil((top + this.element.clientHeight) / step) + 1) * this.columns);
    return [first, last];
  }

  draw() {
    if (!this.element.isConnected) return;
    const [first, last] = this.range();
    for (const [i, cell] of this.cells) {
      if (i >= first && i < last) continue;
      cell.remove();
      this.cells.delete(i);
      this.spare.push(cell);
    }
    for (let i = first; i < last; i += 1) {
      if (this.cells.has(i)) continue;
      const cell = this.spare.pop() ?? this.fresh();
      const [x, y] = this.place(i);
      cell.style.left = `${x}px`;
      cell.style.top = `${y}px`;
      cell.id = `${this.id}-${i}`;
      cell.dataset.i = i;
      this.cells.set(i, cell);
      this.paint(cell, i);
      this.spacer.append(cell);
    }
    if (this.count) this.element.setAttribute("aria-activedescendant", `${this.id}-${this.at}`);
  }

  fresh() {
    const cell = this.make();
    cell.classList.add("cell");
    cell.setAttribute("role", "option");
    cell.style.width = `${this.width}px`;
    cell.style.height = `${this.height}px`;
    return cell;
  }

  paint(cell, i) {
    cell.classList.toggle("chosen", this.chosen.has(i));
    cell.classList.toggle("at", i === this.at);
    cell.setAttribute("aria-selected", this.chosen.has(i));
    cell.setAttribute("aria-posinset", i + 1);
    cell.setAttribute("aria-setsize", this.count);
    this.show(cell, i);
  }

  // Shows all cells in sight anew.
  refresh() {
    for (const [i, cell] of this.cells) this.paint(cell, i);
  }

  go(i, extend = false) {
    if (!this.count) return;
    this.at = Math.max(0, Math.min(this.count - 1, i));
    if (extend && this.many) {
      this.chosen.clear();
      for (let k = Math.min(this.anchor, this.at); k <= Math.max(this.anchor, this.at); k += 1) this.chosen.add(k);
    } else {
      this.anchor = this.at;
      this.chosen.clear();
    }
    const [, y] = this.place(this.at);
    const box = this.element;
    if (y < box.scrollTop + MARGIN) box.scrollTop = y - MARGIN;
    else if (y + this.height > box.scrollTop + box.clientHeight) box.scrollTop = y + this.height + MARGIN - box.clientHeight;
    this.draw();
    this.refresh();
    this.onAt(this.at);
    this.onChoose();
  }

  // What a decision is about: the chosen ones, or the one at the cursor.
  subjects() {
    if (this.chosen.size) return [...this.chosen].sort((a, b) => a - b);
    return this.count ? [this.at] : [];
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if ((event.ctrlKey || event.metaKey) && event.key === "a" && this.many) {
        event.preventDefault();
        for (let i = 0; i < this.count; i += 1) this.chosen.add(i);
        this.refresh();
        this.onChoose();
      }
      return;
    }
    const rows = Math.max(1, Math.floor(this.element.clientHeight / (this.height + MARGIN)) - 1);
    const steps = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -rows * this.columns,
      PageDown: rows * this.columns, Home: -this.count, End: this.count,
    };
    if (event.key in steps) {
      event.preventDefault();
      this.go(this.at + steps[event.key], event.shiftKey);
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.onEnter(this.at);
    } else if (event.key === "Escape" && this.chosen.size) {
      this.chosen.clear();
      this.refresh();
      this.onChoose();
    }
  }

  indexAt(event) {
    const cell = event.target.closest?.(".cell");
    return cell ? Number(cell.dataset.i) : null;
  }

  press(event) {
    if (event.button !== 0 || event.target === this.element) return; // the scroll bar
    const i = this.indexAt(event);
    this.element.focus({ preventScroll: true });
    const start = this.point(event);
    let box = null;
    const base = event.ctrlKey || event.metaKey ? new Set(this.chosen) : new Set();
    const move = (next) => {
      const [x, y] = this.point(next);
      if (!box && Math.hypot(x - start[0], y - start[1]) < 6) return;
      if (!this.many) return;
      box ??= this.spacer.appendChild(h("div", { class: "rubber" }));
      const [left, top] = [Math.min(x, start[0]), Math.min(y, start[1])];
      const [right, bottom] = [Math.max(x, start[0]), Math.max(y, start[1])];
      Object.assign(box.style, { left: `${left}px`, top: `${top}px`, width: `${right - left}px`, height: `${bottom - top}px` });
      this.within(left, top, right, bottom, base);
    };
    const up = () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", up);
      if (box) {
        box.remove();
        this.onChoose();
      } else if (i !== null) this.click(i, event);
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", up);
  }

  point(event) {
    const box = this.spacer.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  within(left, top, right, bottom, base) {
    this.chosen = new Set(base);
    const firstRow = Math.max(0, Math.floor((top - MARGIN) / (this.height + MARGIN)));
    const lastRow = Math.floor((bottom - MARGIN) / (this.height + MARGIN));
    for (let row = firstRow; row <= lastRow; row += 1) {
      for (let column = 0; column < this.columns; column += 1) {
        const i = row * this.columns + column;
        if (i >= this.count) break;
        const [x, y] = this.place(i);
        if (x < right && x + this.width > left && y < bottom && y + this.height > top) this.chosen.add(i);
      }
    }
    this.refresh();
  }

  click(i, event) {
    if (event.shiftKey) {
      this.go(i, true);
    } else if (event.ctrlKey || event.metaKey) {
      if (this.chosen.has(i)) this.chosen.delete(i);
      else this.chosen.add(i);
      this.at = this.anchor = i;
      this.refresh();
      this.onAt(i);
      this.onChoose();
    } else {
      this.go(i);
      this.onClick(i, event);
    }
  }
}

// A tile of a sheet as the background of an element; size: side on the page, px.
export function tile(element, [side, columns, rows], album, key, i, version, size) {
  const perSheet = columns * rows;
  const k = i % perSheet;
  const scale = size / side;
  element.style.width = element.style.height = `${size}px`;
  element.style.backgroundImage = `url("/sheet/${album}/${key}/${Math.floor(i / perSheet)}?v=${version}")`;
  element.style.backgroundSize = `${columns * size}px auto`;
  element.style.backgroundPosition = `${-(k % columns) * side * scale}px ${-Math.floor(k / columns) * side * scale}px`;
}
