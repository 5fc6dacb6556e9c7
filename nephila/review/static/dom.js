// Building elements, messages, dialogs, keys: what all pages share.

// h("div", {class: "x", onclick: f, "aria-label": "y"}, "text", child, [children])
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let silence = 0;

export function say(text, bad = false) {
  const place = document.getElementById("says");
  clearTimeout(silence);
  place.textContent = text;
  place.className = bad ? "bad" : "";
  silence = setTimeout(() => (place.textContent = ""), bad ? 9000 : 4000);
}

export const complain = (error) => say(error.message, true);

// Opens the dialog; resolves with the value of the button that closed it (undefined: Escape).
export async function ask(title, content, buttons = [["Close", undefined]]) {
  const dialog = document.getElementById("dialog");
  if (dialog.open) {
    const closed = new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    dialog.close();
    await closed;
  }
  const back = document.activeElement;
  return new Promise((resolve) => {
    let answer;
    const row = h(
      "div",
      { class: "row end" },
      buttons.map(([label, value], i) =>
        h("button", { type: "button", class: i === buttons.length - 1 ? "main" : "", onclick: () => ((answer = value), dialog.close()) }, label),
      ),
    );
    dialog.replaceChildren(h("h2", { id: "dialog-title" }, title), ...[content].flat(), row);
    dialog.addEventListener("close", () => (back?.focus?.(), resolve(answer)), { once: true });
    if (dialog.open) dialog.close();
    dialog.showModal();
  });
}

export const isTyping = (event) =>
  event.target.matches?.("input:not([type=range]):not([type=checkbox]), select, textarea") || document.getElementById("dialog").open;

export const short = (name) => name.split("/").pop();
export const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
export const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.round(seconds);
  if (s < 90) return `${s} s`;
  const m = Math.round(s / 60);
  return m < 90 ? `${m} min` : `${Math.floor(m / 60)} h ${m % 60} min`;
}
