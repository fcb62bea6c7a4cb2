// What the pages can do only with JavaScript. Without it, everything else still works.
"use strict";

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  const buttons = event.target.querySelectorAll("button");
  // After the event: a disabled button would keep the form from being sent.
  setTimeout(() => buttons.forEach((button) => { button.disabled = true; }));
});
// If the browser shows the page again from its cache, the buttons work again.
window.addEventListener("pageshow", () => {
  document.querySelectorAll("button[disabled]").forEach((button) => { button.disabled = false; });
});

// Plots: uPlot draws the numbers that the server has drawn as SVG.
const colourOf = (name) => {
  const probe = document.createElement("span");
  probe.className = name;
  probe.hidden = true;
  document.body.append(probe);
  const colour = getComputedStyle(probe).backgroundColor;
  probe.remove();
  return colour;
};
const known = ["assigned", "reserved", "aging", "disabled", "available"];
const classOf = (status) => "dot s-" + (known.includes(status) ? status : "other");

const stacked = (levels) => {
  let below = levels[0].map(() => 0);
  return levels.map((level) => (below = level.map((n, i) => n === null ? null : n + below[i])));
};
const padded = (values, length) => [...values, ...Array(length - values.length).fill(null)];

const dayOf = (seconds) => seconds && new Date(seconds * 1000).toLocaleDateString(
  document.documentElement.lang, { day: "numeric", month: "short", timeZone: "UTC" });

function options(figure, title, series, range) {
  const text = getComputedStyle(document.body).color;
  const line = getComputedStyle(figure).borderTopColor;
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
  return {
    title, series, width: figure.clientWidth, height: 260,
    axes: [{ ...axis, values: (u, times) => times.map(dayOf) }, { ...axis, size: 60 }], scales: { y: { range } },
    cursor: { drag: { x: false } }, tzDate: (t) => uPlot.tzDate(new Date(t * 1000), "Etc/UTC"),
  };
}

function drawUse(figure, data) {
  const names = Object.keys(data.statuses), length = data.times.length;
  const raw = names.map((name) => padded(data.statuses[name], length));
  const sums = stacked(raw);
  const areas = names.map((name, n) => ({
    label: name, stroke: colourOf(classOf(name)), fill: colourOf(classOf(name)), points: { show: false },
    value: (u, _, __, day) => (day === null ? "" : raw[n][day] ?? ""),
  })).reverse();
  const future = { label: "forecast", stroke: getComputedStyle(document.body).color, dash: [6, 6],
    width: 2, points: { show: false } };
  const before = Array(data.known - 1).fill(null);
  const lines = data.forecast.length ? [[...before, ...data.forecast]] : [];
  new uPlot(
    options(figure, "Addresses", [{ label: "Day", value: (u, time) => dayOf(time) ?? "" }, ...areas, ...(lines.length ? [future] : [])],
      (u, low, high) => [0, high || 1]),
    [data.times, ...sums.reverse(), ...lines], figure,
  );
}

function drawChanges(figure, data) {
  const series = [["assigned", -1], ["released", 1]].map(([label, align]) => ({
    label, paths: uPlot.paths.bars({ size: [0.4, 10], align }), stroke: colourOf(`dot s-${label === "released" ? "aging" : label}`),
    fill: colourOf(`dot s-${label === "released" ? "aging" : label}`), points: { show: false },
  }));
  figure.hidden = false;
  new uPlot(
    options(figure, "Assigned and released each day", [{ label: "Day", value: (u, time) => dayOf(time) ?? "" }, ...series],
      (u, low, high) => [0, Math.max(high || 1, 4)]),
    [data.times.slice(0, data.known), data.assigned, data.released], figure,
  );
}

window.addEventListener("DOMContentLoaded", () => {
  const source = document.querySelector(".plot script");
  if (!source || !window.uPlot) return;
  const data = JSON.parse(source.textContent);
  const draw = () => {
    const [use, changes] = ["use", "changes"].map((kind) => document.querySelector(`[data-plot=${kind}]`));
    for (const figure of [use, changes]) figure.replaceChildren();
    drawUse(use, data);
    drawChanges(changes, data);
  };
  draw();
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
});
