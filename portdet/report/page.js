// Sorts tables by a click on their heads and filters rows. Nothing is hidden from a reader without scripts.
"use strict";
function keyOf(row, column) {
  const cell = row.cells[column], text = (cell.dataset.key ?? cell.textContent).trim();
  if (text === "inf") return Infinity;
  const number = Number(text.replace(/,/g, ""));
  return text === "" || text === "nan" || text === "n/a" ? null : Number.isNaN(number) ? text : number;
}
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a < b ? -1 : a > b ? 1 : 0;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}
function sort(table, head) {
  const column = head.cellIndex, rows = [...table.tBodies[0].rows];
  const numeric = rows.some(row => typeof keyOf(row, column) === "number");
  const before = head.getAttribute("aria-sort");
  const down = before ? before === "ascending" : numeric && column > 0; // the largest first
  const keyed = rows.map((row, place) => ({ row, place, key: keyOf(row, column) }));
  keyed.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
    return compare(a.key, b.key) * (down ? -1 : 1) || a.place - b.place;
  });
  table.tBodies[0].append(...keyed.map(item => item.row));
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
}
for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length < 2) continue;
  for (const head of table.tHead.rows[0].cells) {
    if (!head.textContent.trim()) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
  }
}
for (const form of document.querySelectorAll("form.filters")) {
  const rows = [...document.querySelectorAll(`#${form.dataset.table} tbody tr`)], count = form.querySelector("output");
  const chosen = name => form.elements[name]?.value.trim().toLowerCase() ?? "";
  function filter() {
    const level = chosen("level"), backend = chosen("backend"), verdict = chosen("verdict"), name = chosen("name");
    let shown = 0;
    for (const row of rows) {
      const data = row.dataset;
      row.hidden =
        (level && data.level.toLowerCase() !== level) || (backend && data.backend.toLowerCase() !== backend) ||
        (verdict && data.verdict !== verdict) || (name && !row.cells[0].textContent.toLowerCase().includes(name));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  }
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", event => event.preventDefault());
  filter();
}
