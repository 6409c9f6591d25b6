// Draws the numbers of /api/v1/metrics, follows the colours of the page, and looks for new ones once a minute.
const REFRESH_MILLISECONDS = 60_000;
const HEIGHT = 200;
const DAY_SECONDS = 86_400;
// Of batches and failures there are no halves.
const WHOLE_STEPS = [1, 2, 5].flatMap((digit) => [0, 1, 2, 3, 4, 5, 6].map((zeros) => digit * 10 ** zeros)).sort((a, b) => a - b);

const root = document.getElementById("plots");
const problem = document.getElementById("plots-problem");
const plots = new Map();
let latest;

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Per plot its lines: a name, a colour of the design, the numbers.
const lines = {
  throughput: (data) => [["pictures/min", "--accent", data.pictures_per_minute]],
  waiting: (data) => [["base", "--busy", data.waiting.base], ["refiner", "--accent", data.waiting.refiner]],
  durations: (data) => [["base", "--busy", data.seconds_per_image.base], ["refiner", "--accent", data.seconds_per_image.refiner]],
  // Without its zeros: they would draw a line along the ground.
  failures: (data) => [["failures", "--bad", data.failures.map((count) => count || null)]],
};

const twoDigits = (number) => String(number).padStart(2, "0");
const clock = (date) => `${twoDigits(date.getHours())}:${twoDigits(date.getMinutes())}`;
const day = (date) => date.toLocaleDateString(undefined, { day: "numeric", month: "short" });
const moment = (seconds) => {
  const date = new Date(seconds * 1000);
  return `${day(date)}, ${clock(date)}`;
};
const tick = (seconds, step) => {
  const date = new Date(seconds * 1000);
  return step >= DAY_SECONDS / 2 && date.getHours() === 0 ? day(date) : clock(date);
};
const told = (value) => (value == null ? "-" : value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

function options(name, data, width) {
  const axis = { stroke: token("--quiet"), grid: { stroke: token("--line"), width: 1 }, ticks: { show: false }, font: `12px ${token("--text")}` };
  const bars = name === "failures";
  const whole = bars || name === "waiting";
  return {
    width,
    height: HEIGHT,
    cursor: { points: { size: 7 }, drag: { x: false, y: false } },
    scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [
      { ...axis, size: 30, space: 60, values: (_plot, splits, _axis, _space, step) => splits.map((seconds) => tick(seconds, step)) },
      { ...axis, size: 46, incrs: whole ? WHOLE_STEPS : undefined, values: (_plot, splits) => splits.map((value) => String(Number(value.toPrecision(6)))) },
    ],
    series: [
      { label: "at", value: (_plot, seconds) => (seconds == null ? "-" : moment(seconds)) },
      ...lines[name](data).map(([label, colour]) => ({
        label,
        stroke: token(colour),
        width: 2,
        fill: `${token(colour)}${bars ? "" : "1f"}`,
        paths: bars ? uPlot.paths.bars({ size: [0.8, 24] }) : undefined,
        // A number alone between gaps would be no line, and so not be seen.
        points: { size: 8, fill: token(colour), show: bars ? false : (plot, series) => hasLonely(plot.data[series]) },
        value: (_plot, value) => told(value),
      })),
    ],
  };
}

function hasLonely(values) {
  return values.some((value, at) => value != null && values[at - 1] == null && values[at + 1] == null);
}

function draw(data) {
  latest = data;
  root.hidden = false;
  for (const name of Object.keys(lines)) {
    const place = root.querySelector(`#${name} .plot`);
    const values = [data.start, ...lines[name](data).map(([, , numbers]) => numbers)];
    const plot = plots.get(name);
    if (plot) plot.setData(values);
    else plots.set(name, new uPlot(options(name, data, place.clientWidth), values, place));
  }
}

function redraw() {
  for (const plot of plots.values()) plot.destroy();
  plots.clear();
  if (latest) draw(latest);
}

async function refresh() {
  try {
    const answer = await fetch(root.dataset.source, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`the farm answered ${answer.status}`);
    draw(await answer.json());
    problem.hidden = true;
  } catch (error) {
    problem.textContent = `The numbers could not be fetched (${error.message}); the next try comes within a minute.`;
    problem.hidden = false;
  }
}

new ResizeObserver(() => {
  for (const plot of plots.values()) plot.setSize({ width: plot.root.parentElement.clientWidth, height: HEIGHT });
}).observe(root);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
setInterval(refresh, REFRESH_MILLISECONDS);
await refresh();
