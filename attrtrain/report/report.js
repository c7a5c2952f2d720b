"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);

function drawTraining() {
  const curves = data.curves, axes = { x: "optimizer steps" };
  const line = (name, ink, dash, mark) => (curves[name] ? [{ name, ink, dash, mark, points: curves[name] }] : []);
  const charts = {
    map: [[...line("val mAP", "model", "", "both"), ...line("prior mAP", "guess", "6 4")], { ...axes, y: "mAP", yRange: [0, 1] }],
    loss: [[...line("train loss", "soft", "2 3"), ...line("val loss", "model", "", "both")], { ...axes, y: "loss" }],
    rate: [line("learning rate", "model"), { ...axes, y: "learning rate", fromZero: true }],
  };
  for (const figure of document.querySelectorAll("[data-chart]")) chart(figure, ...charts[figure.dataset.chart]);
}

// ---- one attribute: numbers, curves, mistakes

function facts(pairs) {
  const list = element("dl", { class: "facts small" });
  for (const [name, value] of pairs) list.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  return list;
}

function curvesOf(attribute) {
  const box = element("div", { class: "charts" });
  const points = attribute.pr[0].map((recall, place) => [recall / 1000, attribute.pr[1][place] / 1000]);
  if (points.length) {
    const at = (name, recall, precision, mark, ink) => (recall && precision ? [{ name, ink, mark, points: [[recall, precision]] }] : []); // where nothing is named there is no point
    const series = [
      { name: "model", ink: "model", points },
      ...(attribute.prior === undefined ? [] : [{ name: `prior ${asScore(attribute.prior)}`, ink: "guess", dash: "6 4", points: [[0, attribute.prior], [1, attribute.prior]] }]),
      ...at(`at ${data.threshold}`, attribute.recall, attribute.precision, "dot", "ink"),
      ...at("at tuned threshold", attribute.recall_tuned, attribute.precision_tuned, "square", "ink"),
    ];
    const figure = element("figure", { class: "chart" }, element("figcaption", {}, "Precision and recall"));
    box.append(chart(figure, series, { x: "recall", y: "precision", xRange: [0, 1], yRange: [0, 1] }));
  }
  if (attribute.bins.length) {
    const most = Math.max(...attribute.bins.map((bin) => bin[2]));
    const series = [
      { name: "calibrated", ink: "guess", dash: "6 4", points: [[0, 0], [1, 1]] },
      { name: "scores in 15 bins, larger for more objects", ink: "model", mark: "dot", points: attribute.bins.map(([score, present, objects]) => [score / 1000, present / 1000, objects / most, `score ${asScore(score / 1000)}, present ${asScore(present / 1000)}, ${asCount(objects)} objects`]) },
    ];
    const figure = element("figure", { class: "chart" }, element("figcaption", {}, "Calibration"));
    box.append(chart(figure, series, { x: "score", y: "share present", xRange: [0, 1], yRange: [0, 1] }));
  }
  return box;
}

function mistakeCard([row, score], name, verdict) {
  const [id, category] = data.objects[row];
  const inGallery = find(`picture-${row}`);
  const uri = inGallery ? inGallery.src : data.pictures[row];
  const told = `${data.categories[category]} ${id}`.trim();
  const picture = uri ? element("img", { src: uri, alt: `Crop of object ${told}` }) : element("div", { class: "absent" }, "no picture in this page");
  const tag = element("li", { class: verdict }, element("span", { class: "hidden" }, `${verdict}: ${name} `), element("span", {}, (score / 1000).toFixed(2)));
  return element("figure", {}, picture, element("figcaption", {}, element("b", {}, data.categories[category] || "object"), " ", element("span", { class: "id" }, id), element("ul", {}, tag)));
}

function mistakesOf(column) {
  const box = document.createDocumentFragment();
  const told = [["wrong", "Named with the highest scores, but labelled absent"], ["missed", "Labelled present, with the lowest scores"]];
  data.attributes[column].mistakes.forEach((list, place) => {
    const [verdict, heading] = told[place];
    box.append(element("h3", {}, heading));
    if (list.length) box.append(element("div", { class: "gallery small" }, ...list.map((entry) => mistakeCard(entry, data.names[column], verdict))));
    else box.append(element("p", { class: "note" }, "none"));
  });
  return box;
}

function numbersOf(attribute) {
  const number = (key) => asScore(attribute[key]);
  const interval = attribute.interval ? `${asScore(attribute.interval[0])} to ${asScore(attribute.interval[1])}` : "–";
  return facts([
    ["AP", number("ap")], ["95\u00a0%", interval], ["prior", number("prior")], ["shuffled AP", number("permutation_ap")], ["category AP", number("category_ap")], ["AUROC", number("auroc")],
    ["precision", number("precision")], ["recall", number("recall")], ["F1", number("f1")], ["balanced acc.", number("balanced_accuracy")], ["calib. error", number("ece")],
    ["tuned precision", number("precision_tuned")], ["tuned recall", number("recall_tuned")], ["tuned F1", number("f1_tuned")], ["tuned threshold", number("threshold_tuned")],
    ["positives", asCount(attribute.positives)], ["negatives", asCount(attribute.negatives)], ["unknown", asCount(attribute.unknowns)],
  ]);
}

function startAttributes() {
  const table = find("attribute-table");
  const [search, group, frequency, judged] = ["search", "group", "frequency", "judged"].map((name) => find(`attribute-${name}`));
  sortable(table);
  openable(table, (cell, row) => {
    const column = Number(row.dataset.column);
    cell.append(numbersOf(data.attributes[column]), curvesOf(data.attributes[column]), mistakesOf(column));
  });
  find("attribute-controls").hidden = false;
  listenTo([search, group, frequency, judged], () => {
    const text = search.value.trim().toLowerCase();
    const agrees = (select, value) => !select || !select.value || select.value === value;
    const keep = (row) => data.names[row.dataset.column].toLowerCase().includes(text) && agrees(group, row.dataset.group) && agrees(frequency, row.dataset.frequency) && agrees(judged, row.dataset.judged);
    filterRows(table, keep, find("attribute-count"), "attributes");
  });
}

function startMistakes() {
  const select = find("mistake-attribute");
  const columns = [...find("attribute-table").tBodies[0].rows].map((row) => Number(row.dataset.column)).filter((column) => data.attributes[column].mistakes.flat().length);
  columns.sort((a, b) => data.names[a].localeCompare(data.names[b], "en"));
  select.append(...columns.map((column) => element("option", { value: column }, data.names[column])));
  const apOf = (column) => (data.attributes[column].judged ? data.attributes[column].ap : 2);
  const worst = columns.reduce((best, column) => (apOf(column) < apOf(best) ? column : best), columns[0]);
  if (columns.length) select.value = worst;
  find("mistake-controls").hidden = !columns.length;
  listenTo([select], () => {
    if (!columns.length) return find("mistake-panel").replaceChildren("No mistake on a known label.");
    const column = Number(select.value), attribute = data.attributes[column];
    const told = element("p", {}, element("b", {}, data.names[column]), ` has an average precision of ${asScore(attribute.ap)}; guessing has ${asScore(attribute.prior)}.`);
    find("mistake-panel").replaceChildren(told, mistakesOf(column));
  });
}

// ---- objects, a page of them at a time

const OBJECTS_A_PAGE = 25;

function objectRow(place) {
  const samples = data.samples, accuracy = samples.known[place] ? samples.correct[place] / samples.known[place] : null;
  const name = element("th", { scope: "row" }, element("button", { type: "button", class: "open", "aria-expanded": "false" }, samples.id[place]));
  const cells = [data.categories[samples.category[place]] || "–", asScore(accuracy), samples.named[place], samples.present[place], samples.known[place]];
  const classes = ["left", "", "", "", "mid"];
  return element("tr", { "data-place": place }, name, ...cells.map((text, number) => element("td", { class: classes[number] }, String(text))));
}

function attributeList(verdict, heading, columns) {
  const list = element("ul", {}, ...columns.map((column) => element("li", { class: verdict }, data.names[column])));
  return element("div", {}, element("h3", {}, `${heading} (${columns.length})`), columns.length ? list : "–");
}

function startObjects() {
  const table = find("object-table"), samples = data.samples, search = find("object-search");
  const value = [
    (place) => samples.id[place], (place) => data.categories[samples.category[place]],
    (place) => (samples.known[place] ? String(samples.correct[place] / samples.known[place]) : ""),
    ...["named", "present", "known"].map((name) => (place) => String(samples[name][place])),
  ];
  const all = samples.id.map((_, place) => place);
  let found = all, page = 0;
  const show = () => {
    const pages = Math.max(1, Math.ceil(found.length / OBJECTS_A_PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    table.tBodies[0].replaceChildren(...found.slice(page * OBJECTS_A_PAGE, (page + 1) * OBJECTS_A_PAGE).map(objectRow));
    find("object-page").textContent = `page ${page + 1} of ${asCount(pages)}`;
    find("object-before").disabled = page === 0;
    find("object-after").disabled = page === pages - 1;
  };
  listenToHead(table, (place, kind, direction) => {
    all.sort((a, b) => compareValues(value[place](a), value[place](b), kind, direction));
    filter();
  });
  const filter = () => {
    const text = search.value.trim().toLowerCase();
    found = all.filter((place) => samples.id[place].includes(text) || data.categories[samples.category[place]].toLowerCase().includes(text));
    find("object-count").textContent = found.length === all.length ? `${asCount(all.length)} objects` : `${asCount(found.length)} of ${asCount(all.length)} objects`;
    page = 0;
    show();
  };
  openable(table, (cell, row) => {
    const place = Number(row.dataset.place);
    const lists = [["right", "right", samples.right], ["wrong", "named, but absent", samples.wrong], ["missed", "missed", samples.missed]];
    cell.append(element("div", { class: "lists" }, ...lists.map(([verdict, heading, columns]) => attributeList(verdict, heading, columns[place]))));
    if (samples.unknown[place]) cell.append(element("p", { class: "note" }, `${samples.unknown[place]} more named where nobody labelled.`));
  });
  find("object-before").addEventListener("click", () => { page -= 1; show(); });
  find("object-after").addEventListener("click", () => { page += 1; show(); });
  find("object-controls").hidden = find("object-pager").hidden = false;
  listenTo([search], filter);
}

drawTraining();
for (const table of document.querySelectorAll("#groups table.sortable")) sortable(table);
startAttributes();
startMistakes();
startObjects();
