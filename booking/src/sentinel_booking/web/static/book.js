// The booking form: shows the wanted time on the lanes, and keeps its choices in step.
"use strict";

(() => {
  const form = document.getElementById("book-form");
  if (!form) return;
  const starts = document.getElementById("starts");
  const ends = document.getElementById("ends");

  const chosen = (name) => form.querySelector(`input[name="${name}"]:checked`)?.value;

  function wanted() {
    const begin = chosen("begin") === "now" || !starts.value ? new Date() : new Date(starts.value);
    return [begin.getTime(), ends.value ? new Date(ends.value).getTime() : NaN];
  }

  function overlaps(lane, begin, end) {
    return [...lane.querySelectorAll("[data-from]")].some(
      (claim) => Date.parse(claim.dataset.from) < end && begin < Date.parse(claim.dataset.until),
    );
  }

  function drawWanted() {
    const lanes = document.getElementById("lanes");
    if (!lanes) return;
    const from = Date.parse(lanes.dataset.from);
    const until = Date.parse(lanes.dataset.until);
    const [begin, end] = wanted();
    const whole = chosen("what") === "whole";
    const cards = new Set([...form.querySelectorAll('input[name="device"]:checked')].map((box) => box.value));
    for (const lane of lanes.querySelectorAll("[data-lane]")) {
      const mark = lane.querySelector(".lane-want");
      const low = Math.max(begin, from);
      const high = Math.min(end, until);
      const isWanted = (whole || cards.has(lane.dataset.lane)) && high > low;
      mark.setAttribute("visibility", isWanted ? "visible" : "hidden");
      if (!isWanted) continue;
      mark.setAttribute("x", `${(100 * (low - from)) / (until - from)}%`);
      mark.setAttribute("width", `${(100 * (high - low)) / (until - from)}%`);
      mark.classList.toggle("clash", overlaps(lane, begin, end));
    }
  }

  function keepInStep(event) {
    // Choosing a card means cards, and typing a start means a start.
    const name = event?.target.name;
    if (name === "device" && event.target.checked) check("what", "cards");
    const later = chosen("begin") === "later";
    document.getElementById("later").hidden = !later;
    starts.required = later;
    // Its base for the quick lengths; a hidden start counts from now.
    starts.disabled = !later;
    const cards = document.getElementById("cards");
    if (cards) cards.hidden = chosen("what") !== "cards";
    drawWanted();
  }

  function check(name, value) {
    const input = form.querySelector(`input[name="${name}"][value="${value}"]`);
    if (input) input.checked = true;
  }

  form.addEventListener("change", keepInStep);
  form.addEventListener("input", drawWanted);
  document.addEventListener("htmx:load", drawWanted);
  keepInStep();
})();
