"use strict";
// Sorting and filtering of the tables that are in the page, by `data-value` of their cells.

function compareValues(a, b, kind, direction) {
  if (a === "" || b === "") return (a === "") - (b === ""); // what has no number comes last either way
  return direction * (kind === "text" ? a.localeCompare(b, "en", { sensitivity: "base" }) : Number(a) - Number(b));
}

// Makes the head's buttons sort; `sortBy(place, kind, direction)` does it.
function listenToHead(table, sortBy) {
  const heads = [...table.tHead.rows[0].cells];
  for (const head of heads.filter((cell) => cell.hasAttribute("aria-sort"))) {
    head.querySelector("button").addEventListener("click", () => {
      const usual = head.dataset.kind === "text" ? "ascending" : "descending"; // names from a, numbers from the highest
      const other = usual === "ascending" ? "descending" : "ascending";
      const chosen = head.getAttribute("aria-sort") === usual ? other : usual;
      for (const cell of heads) if (cell.hasAttribute("aria-sort")) cell.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", chosen);
      sortBy(heads.indexOf(head), head.dataset.kind, chosen === "ascending" ? 1 : -1);
    });
  }
}

// Sorts the rows of a table whose cells carry `data-value`; an opened detail stays below its row.
function sortable(table) {
  const body = table.tBodies[0];
  listenToHead(table, (place, kind, direction) => {
    const rows = [...body.rows].filter((row) => !row.classList.contains("detail"));
    const detailOf = new Map(rows.map((row) => [row, row.nextElementSibling && row.nextElementSibling.classList.contains("detail") ? row.nextElementSibling : null]));
    rows.sort((a, b) => compareValues(a.cells[place].dataset.value, b.cells[place].dataset.value, kind, direction));
    body.append(...rows.flatMap((row) => (detailOf.get(row) ? [row, detailOf.get(row)] : [row])));
  });
}

// Shows the rows that `keep` accepts, and says how many they are.
function filterRows(table, keep, output, noun) {
  let shown = 0, all = 0;
  for (const row of table.tBodies[0].rows) {
    if (row.classList.contains("detail")) continue;
    const kept = keep(row);
    all += 1;
    shown += kept;
    row.hidden = !kept;
    const next = row.nextElementSibling;
    if (next && next.classList.contains("detail")) next.hidden = !kept;
  }
  output.textContent = shown === all ? `${asCount(all)} ${noun}` : `${asCount(shown)} of ${asCount(all)} ${noun}`;
}

// Opens and closes a row that tells more below the one whose button was pressed.
function openable(table, fill) {
  table.tBodies[0].addEventListener("click", (event) => {
    const button = event.target.closest("button.open");
    if (!button) return;
    const row = button.closest("tr");
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) return row.nextElementSibling.remove();
    const cell = element("td", { colspan: row.cells.length });
    row.after(element("tr", { class: "detail" }, cell));
    fill(cell, row);
  });
}

function listenTo(inputs, action) {
  for (const input of inputs) {
    if (!input) continue;
    input.addEventListener("input", action);
    if (input.form) input.form.addEventListener("submit", (event) => event.preventDefault());
  }
  action();
}

// Everything folded is unfolded on paper.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
