// Tables that sort, filter and copy, and values that copy. All of a page is there and can be
// read without this script.
"use strict";
(() => {
  const make = (name, text, attributes) => {
    const e = document.createElement(name);
    if (text) e.textContent = text;
    for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
    return e;
  };
  // What a spreadsheet would take for a formula becomes text (OWASP, CSV Injection).
  const cell = (text) => /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text) ? "'" + text : text;
  // The text of an element, with the whole value where only its beginning is shown.
  const full = (e) => {
    const copy = e.cloneNode(true);
    for (const hidden of copy.querySelectorAll(".hidden")) hidden.remove();
    for (const part of copy.querySelectorAll("[data-full]")) part.textContent = part.dataset.full;
    for (const part of copy.querySelectorAll("small, .soft, .filter")) part.prepend(" ");
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", "", { "aria-hidden": "true" });
      area.value = text;
      area.className = "hidden";
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };

  const order = new Intl.Collator("en", { numeric: true });
  const key = (row, i) => row.cells[i].dataset.key ?? row.cells[i].textContent.trim();

  const enhance = (table) => {
    const body = table.tBodies[0];
    if (!body || body.rows.length < 2) return;
    // How high it is about, until it is laid out, so that the scroll bar does not lie much.
    if (table.parentElement.classList.contains("long")) table.parentElement.style.containIntrinsicBlockSize = "auto " + 4.5 * body.rows.length + "rem";
    const caption = table.caption ? table.caption.textContent.trim() : "table";
    const tools = make("div", "", { class: "tools" });
    const status = make("span", "", { role: "status" });
    const say = (text) => { status.textContent = text; };

    const label = make("label", "Filter ");
    const input = make("input", "", { type: "search", "aria-label": "Filter " + caption, autocomplete: "off", spellcheck: "false" });
    label.append(input);
    const texts = new WeakMap();
    const filter = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
        const text = texts.get(row);
        row.hidden = !words.every((word) => text.includes(word));
        if (!row.hidden) shown++;
      }
      say(words.length ? shown + " of " + body.rows.length + " rows" : "");
    };
    let waiting;
    input.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); });

    const button = make("button", "Copy", { type: "button", "aria-label": "Copy " + caption });
    button.addEventListener("click", async () => {
      const rows = [table.tHead.rows[0], ...Array.from(body.rows).filter((row) => !row.hidden)];
      await copy(rows.map((row) => Array.from(row.cells, (c) => cell(full(c))).join("\t")).join("\n") + "\n");
      say(rows.length - 1 + " rows copied");
    });
    tools.append(label, button, status);
    table.parentElement.before(tools);

    Array.from(table.tHead.rows[0].cells).forEach((head, i) => {
      const sort = make("button", "", { type: "button" });
      sort.append(...head.childNodes);
      head.append(sort);
      sort.addEventListener("click", () => {
        const numbers = head.classList.contains("number");
        const descending = head.ariaSort ? head.ariaSort === "ascending" : numbers;
        const sign = descending ? -1 : 1;
        const rows = Array.from(body.rows, (row) => [key(row, i), row]);
        rows.sort(numbers ? (a, b) => sign * (Number(a[0]) - Number(b[0])) : (a, b) => sign * order.compare(a[0], b[0]));
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.ariaSort = descending ? "descending" : "ascending";
        body.append(...rows.map((row) => row[1]));
        say("sorted by " + head.textContent.trim());
      });
    });
  };
  for (const table of document.querySelectorAll("table[data-tools]")) enhance(table);
  // A part of a live page that was replaced.
  document.addEventListener("replaced", (event) => {
    for (const table of event.target.querySelectorAll("table[data-tools]")) enhance(table);
  });

  // A click or Enter on a value copies it.
  const copyValue = async (e) => {
    await copy(e.textContent);
    e.classList.add("copied");
    setTimeout(() => e.classList.remove("copied"), 1500);
  };
  for (const e of document.querySelectorAll(".facts [data-copy]")) {
    e.tabIndex = 0;
    e.setAttribute("role", "button");
    e.setAttribute("aria-label", "Copy " + e.textContent);
  }
  document.addEventListener("click", (event) => {
    const e = event.target.closest("[data-copy]");
    if (e) copyValue(e);
  });
  document.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && event.target.matches("[data-copy]")) {
      event.preventDefault();
      copyValue(event.target);
    }
  });

  // A link into a closed part opens it. Tables around are laid out when they come near, and
  // push it away: it is looked for until that is over.
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    let frames = 4;
    const find = () => {
      target.scrollIntoView();
      if (--frames) requestAnimationFrame(find);
    };
    find();
  };
  addEventListener("hashchange", open);
  if (location.hash) open();
})();
