"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // Contents: the headings of the sections.
  const contents = document.getElementById("contents");
  for (const heading of all("main > section > h2")) {
    const link = document.createElement("a"), item = document.createElement("li");
    link.href = "#" + heading.id;
    link.textContent = heading.id === "verdict" ? "Verdict" : heading.textContent.trim();
    item.append(link);
    contents.append(item);
  }

  // Charts: all that is ink is of the color of the text around, so that dark and print follow the style sheet.
  const ink = "currentColor", font = getComputedStyle(document.body).fontFamily;
  const config = {
    background: null,
    axis: {
      domainColor: ink, domainOpacity: 0.3, tickColor: ink, tickOpacity: 0.3, gridColor: ink, gridOpacity: 0.12,
      labelColor: ink, titleColor: ink, labelFont: font, titleFont: font, titleFontWeight: 500, labelOpacity: 0.85,
    },
    legend: { labelColor: ink, titleColor: ink, labelFont: font, titleFont: font, labelFontSize: 11 },
    style: { "guide-label": { fill: ink, font }, "guide-title": { fill: ink, font }, cell: { stroke: "transparent" } },
    text: { fill: ink, font },
  };
  const unpacked = (id) => Uint8Array.from(atob(document.getElementById(id).textContent), (sign) => sign.charCodeAt(0));
  const inflated = (bytes) =>
    new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const draw = (place) => {
    const spec = JSON.parse(document.querySelector(`[data-spec="${place.dataset.chart}"]`).textContent);
    delete spec.config;
    return vegaEmbed(place, spec, { actions: false, renderer: "svg", config });
  };
  const drawn = async () => {
    const places = all("[data-chart]");
    if (!places.length) return;
    if (!window.DecompressionStream) throw new Error("this browser is too old for the charts");
    const code = document.createElement("script");
    code.textContent = await inflated(unpacked("runtime"));
    document.head.append(code);
    await Promise.all(places.map(draw));
  };

  // Tables: sorted by the buttons in their heads, searched by the field above.
  const valueOf = (row, at, kind) => {
    const cell = row.cells[at];
    return kind === "number" ? Number(cell?.dataset.value ?? NaN) : (cell?.textContent ?? "").trim();
  };
  const compare = (a, b) =>
    typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : Number.isNaN(a) ? 1 : Number.isNaN(b) ? -1 : a - b;
  for (const button of all("button[data-sort]")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), table = button.closest("table"), body = table.tBodies[0];
      const down = head.getAttribute("aria-sort") === "ascending";
      all("th[aria-sort]", table).forEach((one) => one.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const kind = button.dataset.sort, at = head.cellIndex;
      const rows = [...body.rows].map((row) => [valueOf(row, at, kind), row]);
      rows.sort(([a], [b]) => (down ? -1 : 1) * compare(a, b));
      body.append(...rows.map(([, row]) => row));
    });
  }
  for (const field of all("[data-find]")) {
    const rows = [...document.getElementById(field.dataset.find).tBodies[0].rows];
    const said = document.querySelector(`[data-found="${field.dataset.find}"]`);
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        found += !row.hidden;
      }
      said.textContent = words.length ? `${found} of ${rows.length}` : "";
    });
  }

  // Commands that can be copied, also where a page from a file may not use the clipboard.
  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
  };
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      await copied(button.parentElement.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }

  // The report itself.
  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    document.getElementById("downloaded").textContent = `${name} is saved`;
  };
  document.getElementById("download")?.addEventListener("click", async () => {
    const packed = unpacked("report");
    if (!window.DecompressionStream) return save(new Blob([packed]), "report.json.gz");
    save(new Blob([await inflated(packed)], { type: "application/json" }), "report.json");
  });

  const done = (state) => (document.documentElement.dataset.ready = state);
  drawn().then(
    () => done("yes"),
    (error) => {
      for (const place of all("[data-chart]")) place.textContent = `No chart: ${error.message}`;
      done("no");
    },
  );
})();
