"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);

function drawTraining() {
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const name = figure.dataset.chart;
    const mark = name.startsWith("val") ? "both" : "line";
    const series = [["A", "soft", "6 4"], ["B", "model", ""]]
      .filter(([run]) => data.curves[run.toLowerCase()][name])
      .map(([run, ink, dash]) => ({ name: run, ink, dash, mark, points: data.curves[run.toLowerCase()][name] }));
    if (series.length) chart(figure, series, { x: "optimizer steps", y: name });
    else figure.remove();
  }
}

function startAttributes() {
  const table = find("attribute-table"), search = find("attribute-search"), finding = find("attribute-finding");
  sortable(table);
  find("attribute-controls").hidden = false;
  listenTo([search, finding], () => {
    const text = search.value.trim().toLowerCase();
    const keep = (row) => row.cells[0].dataset.value.toLowerCase().includes(text) && (!finding.value || row.dataset.finding === finding.value);
    filterRows(table, keep, find("attribute-count"), "attributes");
  });
}

drawTraining();
startAttributes();
