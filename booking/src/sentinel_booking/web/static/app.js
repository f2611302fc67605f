// What every page does in the browser: local times, small panels, tips, copying.
// Nothing here decides anything; without it the pages still work, in UTC.
"use strict";

(() => {
  const lang = document.documentElement.lang || "en";
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const MINUTE = 60e3;
  const DAY = 24 * 60 * MINUTE;

  // ------------------------------------------------------------------ times

  const clock = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const full = new Intl.DateTimeFormat(lang, {
    year: "numeric", month: "short", day: "numeric", weekday: "short",
    hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short",
  });
  const thisYear = new Intl.DateTimeFormat(lang, { month: "short", day: "numeric" });
  const otherYear = new Intl.DateTimeFormat(lang, { year: "numeric", month: "short", day: "numeric" });
  const relative = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });

  const midnight = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate());
  const dayNumber = (date) => Math.round((midnight(date) - midnight(new Date())) / DAY);

  function smart(date) {
    const days = dayNumber(date);
    if (days === 0) return clock.format(date);
    if (Math.abs(days) === 1) return `${relative.format(days, "day")} ${clock.format(date)}`;
    const year = date.getFullYear() === new Date().getFullYear() ? thisYear : otherYear;
    return `${year.format(date)} ${clock.format(date)}`;
  }

  function ago(date) {
    const ms = date - Date.now();
    const size = Math.abs(ms);
    if (size < MINUTE) return relative.format(Math.round(ms / 1e3), "second");
    if (size < 90 * MINUTE) return relative.format(Math.round(ms / MINUTE), "minute");
    if (size < 36 * 60 * MINUTE) return relative.format(Math.round(ms / MINUTE / 60), "hour");
    return relative.format(Math.round(ms / DAY), "day");
  }

  const styles = { smart, ago, clock: (date) => clock.format(date), full: (date) => full.format(date) };

  function showTimes(root) {
    for (const element of root.querySelectorAll("[data-when]")) {
      const date = new Date(element.getAttribute("datetime"));
      if (Number.isNaN(date.getTime())) continue;
      const text = styles[element.dataset.when](date);
      if (element.textContent !== text) element.textContent = text;
      if (element.localName === "time") element.title = full.format(date);
    }
    for (const element of root.querySelectorAll("[data-zone]")) element.textContent = zone;
  }

  // ------------------------------------------------------------------ time inputs

  const two = (number) => String(number).padStart(2, "0");

  // The value of a datetime-local input, which knows no zone.
  function toInput(date) {
    return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}` +
      `T${two(date.getHours())}:${two(date.getMinutes())}`;
  }

  // The same moment with the offset that holds then, not now: summer time may begin between.
  function withOffset(date) {
    const minutes = -date.getTimezoneOffset();
    const sign = minutes < 0 ? "-" : "+";
    const size = Math.abs(minutes);
    return `${toInput(date)}:00${sign}${two(Math.floor(size / 60))}:${two(size % 60)}`;
  }

  // The server writes and reads UTC; a hidden twin carries the local value with its offset.
  function localiseInputs(root) {
    for (const input of root.querySelectorAll('input[type="datetime-local"]:not([data-local])')) {
      input.dataset.local = "";
      if (input.value) input.value = toInput(new Date(`${input.value}Z`));
      const twin = document.createElement("input");
      twin.type = "hidden";
      twin.name = input.name;
      input.removeAttribute("name");
      input.after(twin);
      const copy = () => { twin.value = input.value ? withOffset(new Date(input.value)) : ""; };
      input.addEventListener("input", copy);
      input.addEventListener("change", copy);
      copy();
    }
  }

  function setTime(input, date) {
    input.value = toInput(date);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // A button with data-length (seconds) or data-morning sets the time input that it names,
  // counted from data-base (an input's id, or a time), else from now.
  function quickTime(button) {
    const base = baseOf(button);
    if (button.dataset.morning !== undefined) {
      const next = midnight(base);
      next.setDate(next.getDate() + 1);
      next.setHours(9);
      return next;
    }
    return new Date(base.getTime() + Number(button.dataset.length) * 1e3);
  }

  function baseOf(button) {
    const now = new Date();
    const named = button.dataset.base || "";
    const input = document.getElementById(named);
    const text = input ? (input.disabled ? "" : input.value) : named;
    const base = text ? new Date(text) : now;
    return Number.isNaN(base.getTime()) || (base < now && !input) ? now : base;
  }

  // ------------------------------------------------------------------ tips

  const tip = document.getElementById("tip");
  let tipOwner = null;

  function showTip(cell) {
    const text = cell.querySelector(".tip");
    if (!text || !tip) return;
    tipOwner = cell;
    tip.replaceChildren(...[...text.childNodes].map((node) => node.cloneNode(true)));
    tip.hidden = false;
    const box = cell.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left), document.documentElement.clientWidth - own.width - 8);
    const below = box.bottom + 8;
    const top = below + own.height > window.innerHeight ? Math.max(8, box.top - own.height - 8) : below;
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  }

  function hideTip() {
    tipOwner = null;
    if (tip) tip.hidden = true;
  }

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const cell = event.target.closest?.(".has-tip");
    if (cell !== tipOwner) cell ? showTip(cell) : hideTip();
  });
  document.addEventListener("focusin", (event) => {
    const cell = event.target.closest?.(".has-tip");
    if (cell?.matches(":focus-visible")) showTip(cell); else if (!cell) hideTip();
  });
  document.addEventListener("scroll", hideTip, { passive: true, capture: true });

  // On a touch screen the first tap shows what a cell says, the second one follows it.
  let tapped = null;
  document.addEventListener("pointerdown", (event) => {
    const cell = event.target.closest?.(".has-tip");
    tapped = event.pointerType === "touch" && cell && cell !== tipOwner ? cell : null;
    if (event.pointerType === "touch" && !cell) hideTip();
  });

  // ------------------------------------------------------------------ panels, buttons

  const popups = () => document.querySelectorAll("details[data-popup][open]");

  // A panel opens to the right edge of its button; where that leaves the screen, it moves.
  function keepOnScreen(details) {
    const panel = details.querySelector(".pop-panel, .menu-panel");
    if (!panel) return;
    panel.style.transform = "";
    const box = panel.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    let shift = 0;
    if (box.right > width - 8) shift = width - 8 - box.right;
    if (box.left + shift < 8) shift = 8 - box.left;
    if (shift) panel.style.transform = `translateX(${shift}px)`;
  }

  document.addEventListener("toggle", (event) => {
    const opened = event.target;
    if (!opened.matches?.("details[data-popup]") || !opened.open) return;
    for (const other of popups()) if (other !== opened) other.open = false;
    keepOnScreen(opened);
  }, { capture: true });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    hideTip();
    for (const details of popups()) {
      const inside = details.contains(document.activeElement);
      details.open = false;
      if (inside) details.querySelector("summary").focus();
    }
  });

  document.addEventListener("click", (event) => {
    const target = event.target;
    if (tapped && tapped.contains(target)) {
      event.preventDefault();
      showTip(tapped);
      return;
    }
    for (const details of popups()) if (!details.contains(target)) details.open = false;
    const quick = target.closest("button[data-sets]");
    if (quick) setTime(document.getElementById(quick.dataset.sets), quickTime(quick));
    const copier = target.closest("button[data-copy]");
    if (copier) copyText(copier);
  });

  async function copyText(button) {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.querySelector("span").textContent = button.dataset.done;
  }

  // A filter applies at once; its button is for browsers without scripts.
  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (form?.matches("[data-auto]") && event.target.name) form.requestSubmit();
  });

  // A key may be read from a file: it is shown in the text field, and only that is sent.
  document.addEventListener("change", async (event) => {
    const into = document.getElementById(event.target.dataset?.readInto || "");
    const file = event.target.files?.[0];
    if (!into || !file) return;
    into.value = (await file.slice(0, 32768).text()).trim();
    into.focus();
    refusePrivate(into);
    into.reportValidity();
  });

  // A private key is refused before it is sent; the server refuses it too.
  function refusePrivate(area) {
    const isPrivate = /PRIVATE KEY|PuTTY-User-Key-File|b3BlbnNzaC1rZXktdjE/i.test(area.value);
    area.setCustomValidity(isPrivate ? area.dataset.private : "");
  }
  document.addEventListener("input", (event) => {
    if (event.target.dataset?.private) refusePrivate(event.target);
  });

  // ------------------------------------------------------------------ start

  function prepare(root) {
    showTimes(root);
    localiseInputs(root);
    for (const element of root.querySelectorAll("[data-script]")) element.hidden = false;
    for (const element of root.querySelectorAll("[data-no-script]")) element.hidden = true;
    // The clipboard is only there on https and on this machine itself.
    if (navigator.clipboard) for (const element of root.querySelectorAll("[data-copy]")) element.hidden = false;
  }

  prepare(document);
  document.addEventListener("htmx:load", (event) => {
    prepare(event.detail.elt);
    // What a tip pointed at is another element now, or gone.
    if (tipOwner && !tipOwner.isConnected) {
      const same = tipOwner.id && document.getElementById(tipOwner.id);
      same ? showTip(same) : hideTip();
    }
  });
  setInterval(() => showTimes(document), 30e3);
})();
