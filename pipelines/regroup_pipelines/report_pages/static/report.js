/* Shared by all pages: sorting, figures, downloads. Nothing is fetched, so that it works from file://.
   Texts from the store are only ever inserted as text. */
"use strict";
const Report = (() => {
  // Colour, dash and marker of every role: distinguishable without colour.
  const STYLES = {
    softmax: ["--c-ink", "dash", "square-open"],
    regroup: ["--c-blue", "solid", "circle"],
    both: ["--c-ink", "solid", "circle"],
    positive: ["--c-blue", "dash", "triangle-up"],
    negative: ["--c-red", "dot", "triangle-down"],
    "true-clean": ["--c-blue", "dash", "circle-open"],
    "true-attacked": ["--c-blue", "solid", "circle"],
    "other-clean": ["--c-red", "dash", "x-thin-open"],
    "other-attacked": ["--c-red", "solid", "x"],
  };
  STYLES.softmax5 = ["--c-ink", "dot", "diamond-open"];
  STYLES.regroup5 = ["--c-blue", "dot", "diamond"];
  STYLES.alone = ["--soft", "solid", "circle"];
  // Sets of images: 30 combinations of colour and dash before one repeats.
  const COLOURS = ["--c-blue", "--c-red", "--c-green", "--c-purple", "--c-ink"];
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const SYMBOLS = ["circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star"];
  const style = (role) => {
    const set = /^set-(\d+)$/.exec(role);
    if (!set) return STYLES[role];
    const i = Number(set[1]);
    return [COLOURS[i % COLOURS.length], DASHES[i % DASHES.length], SYMBOLS[i % SYMBOLS.length]];
  };
  const PATTERNS = { positive: "/", negative: "x" };
  const figures = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Plotly interprets some tags in text.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const faint = (hex) => hex + "26";
  const read = (id) => {
    const element = document.getElementById(id);
    return element ? JSON.parse(element.textContent) : null;
  };

  function band(series, base) {
    const forth = series.x.concat([...series.x].reverse());
    return {
      x: forth, y: series.high.concat([...series.low].reverse()), fill: "toself", mode: "lines",
      line: { width: 0 }, fillcolor: faint(base.colour),
      hoverinfo: "skip", showlegend: false,
    };
  }

  function bars(series) {
    const c = colour(style(series.role)[0]);
    return [{
      type: "bar", x: series.x.map((x) => (typeof x === "string" ? plain(x) : x)), y: series.y, name: plain(series.name),
      marker: {
        color: c, opacity: series.role === "alone" ? 0.4 : 1,
        pattern: { shape: PATTERNS[series.role] || "", fillmode: "overlay", fgcolor: colour("--paper"), fgopacity: 1 },
      },
      error_y: {
        type: "data", symmetric: false, color: colour("--ink"), thickness: 1, width: 2,
        array: series.high.map((high, i) => high - series.y[i]), arrayminus: series.low.map((low, i) => series.y[i] - low),
      },
      customdata: series.low.map((low, i) => [low, series.high[i]]),
      hovertemplate: "%{y:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]",
    }];
  }

  function line(spec, series) {
    if (series.bars) return bars(series);
    const [name, dash, symbol] = style(series.role);
    const c = colour(name);
    const many = series.x.length > 40;
    // No line between two measurements, which would suggest that there were more.
    const sparse = !spec.step && series.x.length < 3;
    const trace = {
      x: series.x, y: series.y, name: plain(series.name), mode: many ? "lines" : sparse ? "markers" : "lines+markers",
      line: { color: c, dash, width: 2, shape: spec.step ? "hv" : "linear" },
      marker: { color: c, symbol, size: 8, line: { color: c, width: 2 } },
      hovertemplate: "%{y:.4g}" + (series.low ? " [%{customdata[0]:.4g}, %{customdata[1]:.4g}]" : "") + "%{text}",
      customdata: series.low ? series.low.map((low, i) => [low, series.high[i]]) : undefined,
      text: series.x.map((x) => (spec.names && spec.names[x] ? " · " + plain(spec.names[x]) : "")),
    };
    if (sparse && series.low) {
      const above = series.high.map((high, i) => high - series.y[i]);
      const below = series.low.map((low, i) => series.y[i] - low);
      trace.error_y = { type: "data", symmetric: false, array: above, arrayminus: below, color: c };
    }
    return series.low && !spec.step && !sparse ? [band(series, { colour: c }), trace] : [trace];
  }

  function mark(each) {
    const upright = each.x !== undefined;
    return {
      shape: {
        type: "line", xref: upright ? "x" : "paper", yref: upright ? "paper" : "y",
        x0: upright ? each.x : 0, x1: upright ? each.x : 1, y0: upright ? 0 : each.y, y1: upright ? 1 : each.y,
        line: { color: colour("--soft"), dash: "dashdot", width: 1.5 },
      },
      annotation: {
        text: plain(each.text), showarrow: false, font: { color: colour("--soft"), size: 12 },
        x: upright ? each.x : 0, xref: upright ? "x" : "paper", xanchor: "left", xshift: 4,
        y: upright ? 0 : each.y, yref: upright ? "paper" : "y", yanchor: "bottom",
      },
    };
  }

  function axis(title, more) {
    return Object.assign({
      title: { text: plain(title), standoff: 8 }, gridcolor: colour("--grid"), linecolor: colour("--soft"),
      zeroline: false, automargin: true, fixedrange: false,
    }, more);
  }

  function heat(spec) {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const names = spec.heat.names.map(plain);
    return [{
      type: "heatmap", z: spec.heat.z, x: names, y: names, colorscale: "Cividis", reversescale: !dark,
      hovertemplate: "true %{y}, REGroup says %{x}: %{z}<extra></extra>", xgap: 1, ygap: 1,
      colorbar: { thickness: 12, outlinewidth: 0 },
    }];
  }

  function layout(spec) {
    const marks = (spec.lines || []).map(mark);
    const ticks = { type: spec.heat || spec.categories ? "category" : "-" };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 48, r: 12, t: 8, b: 44 },
      font: { color: colour("--ink"), size: 13 }, hovermode: spec.heat ? "closest" : "x unified",
      hoverlabel: { bgcolor: colour("--raised"), font: { color: colour("--ink") } },
      xaxis: axis(spec.x, Object.assign({}, ticks, spec.xaxis)),
      yaxis: axis(spec.y, Object.assign(spec.heat ? { type: "category", autorange: "reversed" } : { range: [0, 102] }, spec.yaxis)),
      legend: { orientation: "h", y: -0.28, x: 0, yanchor: "top" }, showlegend: !spec.heat,
      shapes: marks.map((m) => m.shape), annotations: marks.map((m) => m.annotation),
    };
  }

  function draw(spec) {
    figures.set(spec.key, spec);
    const traces = spec.heat ? heat(spec) : spec.series.flatMap((series) => line(spec, series));
    return Plotly.react(spec.key, traces, layout(spec), { displayModeBar: false, responsive: true });
  }

  function saveFigure(button) {
    const spec = figures.get(button.dataset.of);
    if (!spec) return;
    const size = document.getElementById(spec.key).getBoundingClientRect();
    const ratio = button.dataset.save === "png" ? 2 : 1;
    Plotly.relayout(spec.key, { paper_bgcolor: colour("--paper") })
      .then(() => Plotly.downloadImage(spec.key, {
        format: button.dataset.save, filename: spec.key, width: size.width, height: size.height, scale: ratio,
      }))
      .then(() => Plotly.relayout(spec.key, { paper_bgcolor: "rgba(0,0,0,0)" }));
  }

  function save(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // A browser shows JSON and LaTeX from a folder as a page, so a script next to the file delivers it.
  function bring(link) {
    const script = document.createElement("script");
    script.src = link.dataset.script;
    script.addEventListener("load", () => script.remove());
    document.head.append(script);
  }

  function arrived(name, content) {
    if (typeof content === "string") return save(name, content, "application/x-tex");
    const rows = content.rows.map((row) => Object.fromEntries(row.map((value, i) => [content.heads[i], value])));
    return save(name, JSON.stringify(rows, null, 1) + "\n", "application/json");
  }

  function csv(rows) {
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
    };
    return rows.map((row) => row.map(cell).join(",") + "\n").join("");
  }

  // Compare as numbers where both are numbers, else as text; unknown values come last either way.
  function compare(a, b, sign) {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    const [x, y] = [Number(a), Number(b)];
    const numbers = a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y);
    return sign * (numbers ? x - y : String(a).localeCompare(String(b), "en", { numeric: true }));
  }

  function sortBy(head) {
    const table = head.closest("table"), column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0], sign = down ? -1 : 1;
    const rows = [...body.rows].map((row, index) => [row.cells[column].dataset.sort, index, row]);
    rows.sort((a, b) => compare(a[0], b[0], sign) || a[1] - b[1]);
    body.append(...rows.map((each) => each[2]));
  }

  function start() {
    for (const spec of read("figures") || []) draw(spec);
    document.addEventListener("click", (event) => {
      const sort = event.target.closest("button.sort");
      if (sort) sortBy(sort.closest("th"));
      const figure = event.target.closest("button[data-save]");
      if (figure) saveFigure(figure);
      const link = event.target.closest("a[data-script]");
      if (link) {
        event.preventDefault();
        bring(link);
      }
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const spec of figures.values()) draw(spec);
    });
  }

  return { start, draw, save, arrived, csv, read, plain };
})();
Report.start();
