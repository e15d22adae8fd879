"use strict";
// What a pointer, a finger or the arrow keys add to the page; everything is there to read without it.
(() => {
  const tip = document.getElementById("tip");
  const svgElement = (tag, values) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
    return made;
  };
  const hide = () => { tip.hidden = true; };
  // Beside a point of the window, never outside it.
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
    const top = y - box.height - 12 < 4 ? y + 18 : y - box.height - 12;
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - box.width - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(top, innerHeight - box.height - 4))}px`;
  };
  const nearest = (points, x) => points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));

  for (const figure of document.querySelectorAll("figure.chart:has(> .points)")) {
    const { x: label, series, top, bottom } = JSON.parse(figure.querySelector(".points").textContent);
    const svg = figure.querySelector("svg.lines");
    const stops = [...new Set(series.flatMap((item) => item.points.map((p) => p[0])))].sort((a, b) => a - b);
    const layer = svgElement("g", { "aria-hidden": "true" });
    svg.append(layer);
    let stop = -1;
    const scale = () => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const at = (px) => {
      const lines = [];
      layer.replaceChildren(svgElement("line", { x1: px, x2: px, y1: top, y2: bottom, class: "cursor" }));
      let where = null;
      for (const { name, points } of series) {
        const point = nearest(points, px);
        if (Math.abs(point[0] - px) > 6) continue; // what this curve says elsewhere is not its value here
        layer.append(svgElement("circle", { cx: point[0], cy: point[1], r: 5, class: "ring" }));
        if (where === null || Math.abs(point[0] - px) < Math.abs(where[0] - px)) where = point;
        lines.push(`${name}: ${point[3]}`);
      }
      const box = svg.getBoundingClientRect();
      const heading = where === null ? "" : `${label} ${where[2]}\n`;
      show(heading + lines.join("\n"), box.left + px * scale(), box.top + (where ? where[1] : top) * scale());
    };
    const move = (event) => {
      const px = (event.clientX - svg.getBoundingClientRect().left) / scale();
      at(nearest(stops.map((s) => [s]), px)[0]);
    };
    const leave = () => { layer.replaceChildren(); hide(); };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") leave();
      if (!step) return;
      event.preventDefault();
      stop = Math.max(0, Math.min(stops.length - 1, stop + step));
      at(stops[stop]);
    });
  }

  for (const block of document.querySelectorAll("script.cells")) {
    const { names, rows, support, cell, at: margin } = JSON.parse(block.textContent);
    const svg = block.parentElement.querySelector("svg.matrix");
    const frame = svgElement("rect", { width: cell, height: cell, class: "ring", visibility: "hidden" });
    svg.append(frame);
    let place = [0, 0];
    const leave = () => { frame.setAttribute("visibility", "hidden"); hide(); };
    const at = (row, column) => {
      place = [row, column];
      const found = rows[row].find(([index]) => index === column);
      const count = found ? found[1] : 0;
      const share = support[row] ? `, ${(100 * count / support[row]).toFixed(1)} % of ${support[row]}` : "";
      const what = row === column ? `${names[row]}\nrecognised` : `${names[row]}\ntaken for ${names[column]}`;
      const [x, y] = [margin + column * cell, margin + row * cell];
      frame.setAttribute("x", x);
      frame.setAttribute("y", y);
      frame.setAttribute("visibility", "visible");
      const box = svg.getBoundingClientRect();
      show(`${what}: ${count}${share}`, box.left + x + cell, box.top + y);
    };
    const move = (event) => {
      const box = svg.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left - margin) / cell);
      const row = Math.floor((event.clientY - box.top - margin) / cell);
      if (row < 0 || column < 0 || row >= names.length || column >= names.length) leave();
      else at(row, column);
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") leave(); });
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (event.key === "Escape") leave();
      if (!step) return;
      event.preventDefault();
      const last = names.length - 1;
      const clamp = (number) => Math.max(0, Math.min(last, number));
      if (frame.getAttribute("visibility") === "visible") place = [clamp(place[0] + step[0]), clamp(place[1] + step[1])];
      at(...place);
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const words = new Intl.Collator(undefined, { numeric: true });
    heads.forEach((head, index) => {
      head.querySelector("button").addEventListener("click", () => {
        const number = head.classList.contains("number");
        const before = head.getAttribute("aria-sort");
        // Numbers begin with the largest, names with A.
        const down = before === "none" ? number : before === "ascending";
        const key = (row) => row.cells[index].dataset.key ?? row.cells[index].textContent;
        const order = (a, b) => (number ? key(a) - key(b) : words.compare(key(a), key(b)));
        const rows = [...body.rows].sort((a, b) => (down ? -order(a, b) : order(a, b)));
        body.append(...rows);
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
      });
    });
  }

  // A link to a run that is folded unfolds it.
  const unfold = () => {
    const target = location.hash ? document.getElementById(location.hash.slice(1)) : null;
    const folded = target && (target.closest("details") ?? target.querySelector(":scope > details"));
    if (folded && !folded.open) { folded.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", unfold);
  unfold();

  // On paper nothing is folded.
  addEventListener("beforeprint", () => { for (const folded of document.querySelectorAll("details")) folded.open = true; });
  // Scrolling moves what the pointer was at; keys bring their place with them.
  const byKeys = () => document.activeElement.matches("svg[tabindex]:focus-visible");
  addEventListener("scroll", () => { if (!byKeys()) hide(); }, { passive: true });
  // A finger leaves when it is lifted: what it has shown stays until it touches something else.
  addEventListener("pointerdown", (event) => { if (!event.target.closest("svg[tabindex]")) hide(); });
})();
