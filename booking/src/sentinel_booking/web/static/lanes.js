// Puts the lanes' marks at hours and days of the browser's zone. The server drew them in UTC.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const HOUR = 3600e3;
  const lang = document.documentElement.lang || "en";
  const clock = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const day = new Intl.DateTimeFormat(lang, { weekday: "short", day: "numeric" });
  const full = new Intl.DateTimeFormat(lang, {
    month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
  });

  // Local hours that divide the day evenly, so far apart that their labels fit.
  function marks(from, until, width) {
    const steps = [1, 2, 3, 4, 6, 12, 24, 48];
    const most = Math.max(2, Math.floor(width / 58));
    const step = steps.find((hours) => (until - from) / HOUR / hours <= most) || 72;
    const at = new Date(from);
    at.setHours(0, 0, 0, 0);
    const found = [];
    while (at.getTime() < until) {
      if (at.getTime() >= from) found.push(new Date(at));
      at.setHours(at.getHours() + step);
    }
    return found;
  }

  function draw(lanes) {
    const from = Date.parse(lanes.dataset.from);
    const until = Date.parse(lanes.dataset.until);
    const axis = lanes.querySelector(".lane-axis");
    const width = axis.getBoundingClientRect().width;
    if (!width) return;
    for (const old of lanes.querySelectorAll("[data-tick]")) old.remove();
    for (const mark of marks(from, until, width)) {
      const x = (100 * (mark - from)) / (until - from);
      const label = document.createElementNS(SVG, "text");
      label.textContent = mark.getHours() === 0 ? day.format(mark) : clock.format(mark);
      label.setAttribute("x", `${x}%`);
      label.setAttribute("y", "16");
      label.dataset.tick = "";
      // A label must not hang out of the page at either end.
      if ((x / 100) * width > width - 24) continue;
      if ((x / 100) * width < 20) label.setAttribute("class", "first");
      axis.append(label);
      for (const lane of lanes.querySelectorAll(".lane")) {
        const line = document.createElementNS(SVG, "line");
        for (const [name, value] of [["x1", `${x}%`], ["x2", `${x}%`], ["y1", "0"], ["y2", "35"]]) line.setAttribute(name, value);
        line.dataset.tick = "";
        lane.prepend(line);
      }
    }
    for (const claim of lanes.querySelectorAll("[data-who]")) {
      const times = [claim.dataset.from, claim.dataset.until].map((text) => full.format(new Date(text)));
      claim.querySelector("title").textContent = `${claim.dataset.who}: ${times.join(" – ")}`;
    }
  }

  const drawAll = () => { for (const lanes of document.querySelectorAll(".lanes")) draw(lanes); };
  drawAll();
  document.addEventListener("htmx:load", drawAll);
  addEventListener("resize", drawAll);
})();
