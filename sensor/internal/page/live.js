// Keeps a page up to date: when the sensor tells of something, the page is read again, and
// its parts are replaced. All text is made by the sensor, so that there is one place that
// makes it harmless.
"use strict";
(() => {
  const parts = Array.from(document.querySelectorAll("[data-live]"), (e) => e.id);
  if (!parts.length) return;
  const news = document.getElementById("news");
  const say = (text) => { if (news.textContent !== text) news.textContent = text; };

  // A part in which somebody reads, types or has sorted stays as it is.
  const inUse = (part) => {
    const chosen = getSelection();
    return part.contains(document.activeElement) || part.querySelector("[aria-sort]") ||
      Array.from(part.querySelectorAll("input")).some((input) => input.value) ||
      (chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode));
  };
  const shown = new Map(); // the markup of each part as it was read last
  const replace = (page) => {
    for (const id of parts) {
      const before = document.getElementById(id), after = page.getElementById(id);
      if (!before || !after || shown.get(id) === after.innerHTML || inUse(before)) continue;
      shown.set(id, after.innerHTML);
      const now = document.importNode(after, true);
      before.replaceWith(now);
      now.dispatchEvent(new CustomEvent("replaced", { bubbles: true }));
    }
  };

  const spacing = 1000; // milliseconds between two readings
  let reading = false, again = false, last = 0;
  const read = () => {
    if (reading) { again = true; return; }
    reading = true;
    const wait = Math.max(0, last + spacing - Date.now());
    setTimeout(() => {
      const ask = new XMLHttpRequest(); // it makes a document without running anything
      ask.open("GET", location.href);
      ask.responseType = "document";
      ask.timeout = 15000;
      ask.onloadend = () => {
        if (ask.status === 200 && ask.response) replace(ask.response);
        if (ask.status === 401) location.reload();
        reading = false;
        last = Date.now();
        if (again) { again = false; read(); }
      };
      ask.send();
    }, wait);
  };

  let events;
  const follow = () => {
    if (events || document.hidden) return;
    events = new EventSource("/events");
    events.onopen = () => { say(""); read(); };
    events.onerror = () => {
      say("Not connected: this page stands still.");
      if (events && events.readyState === EventSource.CLOSED) { // refused: it does not try again by itself
        events = undefined;
        setTimeout(follow, 30000);
      }
    };
    events.addEventListener("alert", (event) => {
      const a = JSON.parse(event.data);
      say("Alert, " + a.level + ": " + a.rule + " (" + a.server + ")");
      read();
    });
    for (const kind of ["sample", "survey", "missed"]) events.addEventListener(kind, read);
  };
  // A page that nobody looks at holds no connection: browsers allow six to a sensor.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && events) { events.close(); events = undefined; } else follow();
  });
  follow();
})();
