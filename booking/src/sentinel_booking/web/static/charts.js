// Draws a node's charts from the charts API, with uPlot. The server chooses the queries.
"use strict";

(() => {
  const lang = document.documentElement.lang || "en";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const section = document.getElementById("charts");
  const words = section.dataset;
  // Told apart by people who see few colours, too; the legend names each line.
  const COLOURS = ["#2f6fde", "#d9822b", "#2f9e62", "#b4489e", "#8a6fd1", "#c2504a", "#2a9aa8", "#8d8427"];
  const REFRESH_MS = 30e3;

  const number = (digits) => new Intl.NumberFormat(lang, { maximumFractionDigits: digits });
  const whole = number(0);
  const fine = number(1);
  const UNITS = {
    ratio: (value) => `${whole.format(value * 100)} %`,
    celsius: (value) => `${whole.format(value)} °C`,
    watts: (value) => `${whole.format(value)} W`,
    bytes_per_second: rate,
  };

  function rate(value) {
    const names = ["B/s", "kB/s", "MB/s", "GB/s"];
    let at = 0;
    while (Math.abs(value) >= 1000 && at < names.length - 1) { value /= 1000; at += 1; }
    return `${fine.format(value)} ${names[at]}`;
  }

  const say = (unit, value) => value == null ? "–" : (UNITS[unit] || ((v) => fine.format(v)))(value);
  const clock = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const date = new Intl.DateTimeFormat(lang, { month: "short", day: "numeric" });

  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function axis(side, values) {
    return {
      side, values, font: `11px ${token("--font")}`, stroke: token("--muted"),
      grid: { stroke: token("--line"), width: 1 }, ticks: { show: false },
    };
  }

  function range(unit, low, high) {
    if (unit === "ratio") return [0, 1];
    // Zero degrees means nothing; for all else the distance from zero does.
    if (unit === "celsius") return [Math.max(0, (low ?? 0) - 10), (high ?? 50) + 5];
    return [Math.min(0, low ?? 0), (high || 1) * 1.1];
  }

  // The server names cards "nvidia 3"; where all are of one maker, its name says nothing.
  function label(series, data) {
    const found = /^(nvidia|ascend) (\d+)$/.exec(series.label);
    const makers = new Set(data.series.map((one) => one.label.split(" ")[0]));
    return found && makers.size === 1 ? `${words.card} ${found[2]}` : series.label;
  }

  function options(area, data, width) {
    const minutes = Number(section.dataset.minutes);
    return {
      width, height: 190,
      padding: [8, 8, 0, 0],
      cursor: { points: { size: 6 }, drag: { setScale: false } },
      legend: { live: true },
      scales: { y: { range: (_, low, high) => range(data.unit, low, high) } },
      axes: [
        { ...axis(2, (_, times) => times.map((t) => (minutes > 1440 ? date : clock).format(new Date(t * 1e3)))), space: 60, size: 30 },
        { ...axis(3, (_, values) => values.map((value) => say(data.unit, value))), size: 62 },
      ],
      series: [
        { label: words.time, value: (_, t) => (t == null ? "–" : clock.format(new Date(t * 1e3))) },
        ...data.series.map((series, index) => ({
          label: label(series, data),
          stroke: COLOURS[index % COLOURS.length],
          dash: index < COLOURS.length ? undefined : [6, 4],
          width: 1.5,
          points: { show: false },
          value: (_, value) => say(data.unit, value),
        })),
      ],
    };
  }

  const charts = [...section.querySelectorAll("[data-chart]")].map((area) => ({ area, plot: null }));

  function tell(chart, text) {
    chart.plot?.destroy();
    chart.plot = null;
    const said = document.createElement("p");
    said.className = "chart-said";
    said.textContent = text;
    chart.area.replaceChildren(said);
  }

  function draw(chart, data) {
    chart.plot?.destroy();
    chart.area.replaceChildren();
    chart.plot = new uPlot(
      options(chart.area, data, chart.area.clientWidth),
      [data.times, ...data.series.map((series) => series.values)],
      chart.area,
    );
  }

  const RETRY_MS = 1500;

  async function load(chart, tries = 3) {
    const address = `${words.source}${chart.area.dataset.chart}?minutes=${section.dataset.minutes}`;
    let answer;
    try {
      answer = await fetch(address, { headers: { Accept: "application/json" } });
    } catch {
      // Chromium drops what it is loading when the network changes: a second try helps.
      if (tries > 1) setTimeout(() => load(chart, tries - 1), RETRY_MS);
      else tell(chart, words.unreachable);
      return;
    }
    if (!answer.ok) {
      tell(chart, answer.status === 503 ? words.noPrometheus : words.unreachable);
      return;
    }
    const data = await answer.json();
    const isEmpty = !data.series.some((series) => series.values.some((value) => value != null));
    if (isEmpty) tell(chart, words.noData); else draw(chart, data);
  }

  const loadAll = () => Promise.all(charts.map((chart) => load(chart)));

  for (const button of section.querySelectorAll("[data-minutes-choice]")) {
    button.addEventListener("click", () => {
      section.dataset.minutes = button.dataset.minutesChoice;
      for (const other of section.querySelectorAll("[data-minutes-choice]")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      loadAll();
    });
  }

  new ResizeObserver(() => {
    for (const { area, plot } of charts) {
      if (plot && area.clientWidth && area.clientWidth !== plot.width) plot.setSize({ width: area.clientWidth, height: plot.height });
    }
  }).observe(section);
  dark.addEventListener("change", loadAll);
  // A page in the background asks for nothing.
  setInterval(() => { if (!document.hidden) loadAll(); }, REFRESH_MS);
  loadAll();
})();
