"use strict";
// Small drawings in SVG. Text goes in as text only: nothing from the data becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const asScore = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
const asCount = (value) => value.toLocaleString("en");

function asTick(value) {
  if (value === 0) return "0";
  if (Math.abs(value) >= 10000) return `${+(value / 1000).toPrecision(3)} k`;
  return Math.abs(value) < 0.001 ? value.toExponential(0) : String(+value.toPrecision(3));
}

// Round numbers that span low to high.
function ticks(low, high, count = 4) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) found.push(+value.toPrecision(10));
  return found;
}

function extent(series, place) {
  const values = series.flatMap((line) => line.points.map((point) => point[place]));
  return [Math.min(...values), Math.max(...values)];
}

// Draws lines and points over two axes.
//   series: [{name, ink, dash, points: [[x, y, weight?, note?]], mark: "line" | "dot" | "square" | "both"}]
//   axes: {x: label, y: label, xRange, yRange}
function chart(figure, series, axes) {
  const width = 360, height = 236, right = 10, top = 10, bottom = 38;
  const [x0, x1] = axes.xRange || extent(series, 0);
  let [y0, y1] = axes.yRange || extent(series, 1);
  if (!axes.yRange) {
    const room = (y1 - y0) * 0.06 || Math.abs(y1) * 0.1 || 1;
    [y0, y1] = [axes.fromZero ? Math.min(0, y0) : y0 - room, y1 + room];
  }
  const left = Math.max(46, 26 + 6.3 * Math.max(...ticks(y0, y1).map((value) => asTick(value).length))); // the axis' name, and then the longest tick
  const atX = (x) => left + ((x - x0) / (x1 - x0 || 1)) * (width - left - right);
  const atY = (y) => height - bottom - ((y - y0) / (y1 - y0 || 1)) * (height - top - bottom);
  const caption = figure.querySelector("figcaption");
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${caption ? caption.textContent : axes.y}. ${series.map(spoken).join(" ")}` });
  for (const value of ticks(y0, y1)) {
    svg.append(
      shape("line", { class: "grid", x1: left, x2: width - right, y1: atY(value), y2: atY(value) }),
      shape("text", { x: left - 6, y: atY(value) + 4, "text-anchor": "end" }, asTick(value)),
    );
  }
  for (const value of ticks(x0, x1)) svg.append(shape("text", { x: atX(value), y: height - bottom + 15, "text-anchor": "middle" }, asTick(value)));
  svg.append(
    shape("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, axes.x),
    shape("text", { transform: `translate(11 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, axes.y),
  );
  for (const line of series) draw(svg, line, atX, atY);
  figure.append(svg, keys(series));
  return figure;
}

function spoken(line) {
  const [first, last] = [line.points[0], line.points[line.points.length - 1]];
  return `${line.name}: ${line.points.length > 1 ? `${asTick(first[1])} at ${asTick(first[0])} to ` : ""}${asTick(last[1])} at ${asTick(last[0])}.`;
}

function draw(svg, line, atX, atY) {
  const mark = line.mark || "line";
  if (mark === "line" || mark === "both") {
    const path = line.points.map(([x, y], place) => `${place ? "L" : "M"}${atX(x).toFixed(1)} ${atY(y).toFixed(1)}`).join("");
    svg.append(shape("path", { class: `line ${line.ink}-ink`, d: path, "stroke-dasharray": line.dash || "none" }));
  }
  if (mark === "line" && line.points.length > 1) return;
  for (const [x, y, weight = 1, note = ""] of line.points) {
    const size = 2.5 + 4 * Math.sqrt(weight) * (mark === "dot" ? 1 : 0.4);
    const attributes = mark === "square"
      ? { x: atX(x) - 4.5, y: atY(y) - 4.5, width: 9, height: 9 }
      : { cx: atX(x), cy: atY(y), r: size };
    const point = shape(mark === "square" ? "rect" : "circle", { class: `point ${line.ink}-fill`, ...attributes });
    point.append(shape("title", {}, note || `${line.name}: ${asTick(y)} at ${asTick(x)}`));
    svg.append(point);
  }
}

// The key below a chart: lines are told apart by dashes and marks, not by colour alone.
function keys(series) {
  const list = element("ul", { class: "keys" });
  for (const line of series) {
    const sample = shape("svg", { viewBox: "0 0 26 12", "aria-hidden": "true" });
    const mark = line.mark || "line";
    if (mark === "line" || mark === "both") sample.append(shape("line", { class: `line ${line.ink}-ink`, x1: 0, x2: 26, y1: 6, y2: 6, "stroke-width": 2.5, "stroke-dasharray": line.dash || "none" }));
    if (mark === "square") sample.append(shape("rect", { class: `${line.ink}-fill`, x: 9, y: 2, width: 8, height: 8 }));
    if (mark === "dot" || mark === "both") sample.append(shape("circle", { class: `${line.ink}-fill`, cx: 13, cy: 6, r: 4 }));
    list.append(element("li", {}, sample, line.name));
  }
  return list;
}
