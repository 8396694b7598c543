"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const one = (id) => document.getElementById(id);
  const colour = (i) => data.palette[i % data.palette.length];

  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "path", "line", "circle", "text", "rect", "clipPath"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const short = (value, digits = 0) => {
    const size = Math.abs(value);
    if (!digits && size > 1e-9 && size < 0.01) return value.toExponential(2).replace(/\.?0+e/, "e").replaceAll("-", "−");
    const text = value.toFixed(Math.max(digits, size >= 100 ? 0 : size >= 1 ? 1 : 3));
    return (text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text).replace("-", "−");
  };

  // Light and dark
  one("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    redraw.forEach((draw) => draw());
  });
  const redraw = [];
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // What has been chosen on this page, which its address keeps
  const view = new URLSearchParams(location.hash.slice(1));
  const keep = (name, value) => {
    if (value) view.set(name, value); else view.delete(name);
    location.replace(`#${view}`);
  };
  // A link to another view of this page, opened where it is shown
  addEventListener("hashchange", () => { if (`${new URLSearchParams(location.hash.slice(1))}` !== `${view}`) location.reload(); });

  // The table of metrics
  const table = one("metrics");
  if (table) {
    const heads = [...table.tHead.rows[0].cells];
    const names = [];
    for (const head of heads) {
      let name = head.firstElementChild.firstChild.textContent.trim();
      while (names.includes(name)) name += " (metric)";  // an option is called so, too
      names.push(name);
    }
    heads.forEach((head, column) => {
      const button = head.firstElementChild;
      const say = () => { one("meaning").textContent = button.dataset.meaning || "\u00a0"; };
      button.addEventListener("mouseenter", say);
      button.addEventListener("focus", say);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        keep("sort", `${falling ? "-" : ""}${names[column]}`);
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.value;
        const compare = (a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === "");
          const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
          return falling ? -order : order;
        };
        for (const kind of table.tBodies) {
          kind.append(...[...kind.rows].filter((row) => row.className !== "kind").sort(compare));
        }
      });
    });
    chooseFrom(table, names);
    const sorted = view.get("sort") || "", column = names.indexOf(sorted.replace(/^-/, ""));
    if (column >= 0) for (let click = sorted.startsWith("-") ? 2 : 1; click; click--) heads[column].firstElementChild.click();
  }

  function chooseFrom(table, names) {
    one("chooser").hidden = false;
    const rows = [...table.tBodies].flatMap((kind) => [...kind.rows].filter((row) => row.className !== "kind"));
    const texts = new Map(rows.map((row) => [row, [...row.cells].filter((cell) => cell.className === "key").map((cell) => cell.textContent).join(" ").toLowerCase()]));
    const filter = one("filter");
    const narrow = () => {
      const wanted = filter.value.trim().toLowerCase();
      let count = 0;
      for (const row of rows) count += !(row.hidden = !texts.get(row).includes(wanted));
      for (const kind of table.tBodies) kind.hidden = [...kind.rows].every((row) => row.hidden || row.className === "kind");
      one("filtered").textContent = wanted ? `${count} of ${rows.length}` : "";
    };
    filter.value = view.get("runs") || "";
    filter.addEventListener("input", () => { narrow(); keep("runs", filter.value.trim()); });
    narrow();
    const hidden = new Set((view.get("without") || "").split("\n").filter(Boolean));
    const style = document.head.appendChild(make("style"));
    const hide = () => {
      const numbers = names.flatMap((name, i) => (hidden.has(name) ? [`#metrics tr:not(.kind) > :nth-child(${i + 1})`] : []));
      style.textContent = numbers.length ? `${numbers.join(",")} { display: none }` : "";
    };
    const boxes = names.map((name) => {
      const box = make("input", { type: "checkbox" });
      box.checked = !hidden.has(name);
      box.addEventListener("change", () => {
        if (box.checked) hidden.delete(name); else hidden.add(name);
        hide();
        keep("without", [...hidden].join("\n"));
      });
      one("columns").append(make("label", {}, box, ` ${name}`));
      return box;
    });
    const none = make("button", { type: "button" }, "none"), all = make("button", { type: "button" }, "all");
    for (const [button, shown] of [[all, true], [none, false]]) button.addEventListener("click", () => {
      const keys = table.tHead.rows[0].cells;
      boxes.forEach((box, i) => { box.checked = shown || keys[i].className === "key"; });
      hidden.clear();
      names.forEach((name, i) => { if (!boxes[i].checked) hidden.add(name); });
      hide();
      keep("without", [...hidden].join("\n"));
    });
    one("columns").append(all, none);
    hide();
    one("csv").addEventListener("click", () => {
      // A spreadsheet would take some texts for formulas.
      const plain = (text) => (/^[=+\-@\t\r]/.test(text) && isNaN(text) ? `'${text}` : text);
      const cell = (text) => `"${plain(text).replaceAll('"', '""')}"`;
      const shown = names.map((name, i) => i).filter((i) => !hidden.has(names[i]));
      const order = [...table.tBodies].flatMap((kind) => [...kind.rows]).filter((row) => texts.has(row) && !row.hidden);
      const lines = [shown.map((i) => names[i]), ...order.map((row) => shown.map((i) => row.cells[i].dataset.value))];
      save(new Blob([lines.map((line) => line.map(cell).join(",") + "\r\n").join("")], { type: "text/csv" }), "metrics.csv");
    });
  }

  function save(blob, name) {
    const link = make("a", { download: name, href: URL.createObjectURL(blob) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // Samples during training
  const steps = [...new Set(data.runs.flatMap((run) => run.grids.map((grid) => grid.step)))].sort((a, b) => a - b);
  if (steps.length) {
    one("training").hidden = false;
    const sampled = [];
    for (const run of data.runs) {
      const picture = run.grids.length ? make("img", { alt: `Samples of ${run.label}` })
        : make("div", { class: "none" }, "no samples were drawn during training");
      one("grids").append(make("figure", {}, picture, make("figcaption", {}, run.label)));
      if (run.grids.length) sampled.push({ run, picture });
    }
    const slider = one("step");
    slider.max = steps.length - 1;
    const show = () => {
      const step = steps[slider.value];
      one("step-of").textContent = `step ${step}`;
      slider.setAttribute("aria-valuetext", `step ${step}`);
      sampled.forEach(({ run, picture }) => {
        const past = run.grids.filter((grid) => grid.step <= step);
        picture.src = data.sheets[(past.at(-1) || run.grids[0]).src];
      });
    };
    // Enlarged, pictures keep their pixels; large ones are shrunk smoothly.
    sampled.forEach(({ picture }) => picture.addEventListener("load", () => {
      picture.classList.toggle("large", picture.naturalWidth > 400);
    }));
    slider.addEventListener("input", show);
    slider.value = steps.length - 1;
    show();
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; one("play").textContent = "▶"; one("play").setAttribute("aria-label", "Play"); };
    one("play").addEventListener("click", () => {
      if (timer) return stop();
      if (+slider.value === steps.length - 1) slider.value = 0;
      show();
      one("play").textContent = "❚❚";
      one("play").setAttribute("aria-label", "Pause");
      timer = setInterval(() => {
        slider.value = +slider.value + 1;
        show();
        if (+slider.value === steps.length - 1) stop();
      }, 450);
    });
  }

  // A button that saves a chart as a PNG file, with its title and, for lines, what they are.
  const DRAWN = ["fill", "stroke", "stroke-width", "paint-order", "font-size", "font-family", "font-weight", "text-anchor", "visibility", "opacity"];

  function asPicture(svg, title, series) {
    const button = make("button", { type: "button", class: "save", "aria-label": `Download as PNG: ${title}` }, "PNG");
    button.addEventListener("click", () => {
      const copy = svg.cloneNode(true), { width, height } = svg.viewBox.baseVal, SCALE = 3, HEAD = 26, ROW = 16;
      const drawn = svg.querySelectorAll("*");
      copy.querySelectorAll("*").forEach((node, i) => {
        const style = getComputedStyle(drawn[i]);  // a picture has no style sheet
        for (const name of DRAWN) node.style.setProperty(name, style.getPropertyValue(name));
      });
      copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      copy.setAttribute("width", width * SCALE);
      copy.setAttribute("height", height * SCALE);
      const named = series.filter((s) => s.label).slice(0, 12), page = getComputedStyle(document.body);
      const image = new Image();
      image.onload = () => {
        const canvas = make("canvas", { width: width * SCALE, height: (height + HEAD + ROW * named.length) * SCALE });
        const pen = canvas.getContext("2d");
        pen.scale(SCALE, SCALE);
        pen.fillStyle = page.backgroundColor;
        pen.fillRect(0, 0, canvas.width, canvas.height);
        pen.drawImage(image, 0, HEAD, width, height);
        pen.fillStyle = page.color;
        pen.font = `600 13px ${page.fontFamily}`;
        pen.fillText(title, 8, 17, width - 16);
        pen.font = `11px ${page.fontFamily}`;
        named.forEach((s, i) => {
          const y = HEAD + height + ROW * i + 8;
          pen.fillStyle = s.colour;
          pen.fillRect(8, y - 7, 9, 9);
          pen.fillStyle = page.color;
          pen.fillText(s.label, 22, y + 1, width - 30);
        });
        canvas.toBlob((blob) => save(blob, `${title.replaceAll(/[^\p{L}\p{N}]+/gu, "_").replaceAll(/^_|_$/g, "")}.png`));
      };
      image.src = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
    });
    return button;
  }

  // Charts: series of {label, colour, x, y, spread?, name?} as lines or points
  const WIDTH = 360, HEIGHT = 230, LEFT = 46, BOTTOM = 30, TOP = 10, RIGHT = 10;

  function ticks(low, high, count, least = 0) {
    const raw = Math.max((high - low) / count, least), power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) found.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
    return found;
  }

  // The decimals with which all ticks are written exactly
  function decimals(ticks) {
    const near = Math.abs(ticks[1] - ticks[0]) / 100;
    const exact = (digits) => ticks.every((tick) => Math.abs(tick - tick.toFixed(digits)) < near);
    return [0, 1, 2, 3, 4, 5, 6, 7, 8].find(exact) ?? (ticks.length > 1 ? 9 : 0);
  }

  // Of many curves, those that would flatten the others, as in plots.far_outside
  function farOutside(heights) {
    const curves = heights.filter((values) => values.length), all = curves.flat().sort((a, b) => a - b);
    const quantile = (share) => {
      const at = (all.length - 1) * share, below = Math.floor(at);
      return all[below] + (at - below) * (all[Math.ceil(at)] - all[below]);
    };
    const lower = quantile(0.25), upper = quantile(0.75), far = 20 * (upper - lower);
    const outside = curves.filter((values) => Math.min(...values) < lower - far || Math.max(...values) > upper + far);
    return curves.length >= 5 && 2 * outside.length < curves.length ? outside : [];
  }

  function chart(parent, title, series, { lines = true, log2 = false, xLabel = "", yLabel = "", settle = false, whole = false } = {}) {
    const across = log2 ? Math.log2 : (x) => x;
    const xs = series.flatMap((s) => s.x.map(across));
    const heights = series.map((s) => s.y.flatMap((y, i) => {
      if (settle && i < Math.floor(s.y.length / 10)) return [];
      return s.spread ? [y - s.spread[i], y + s.spread[i]] : [y];
    }));
    const outside = settle ? farOutside(heights) : [];
    const ys = heights.filter((values) => !outside.includes(values)).flat();
    if (outside.length) title += ` (${outside.length} outside)`;
    const range = (values) => {
      const low = Math.min(...values), high = Math.max(...values), margin = (high - low || Math.abs(high) || 1) * 0.06;
      return [low - margin, high + margin];
    };
    const [left, right] = range(xs), [low, high] = range(ys);
    const px = (x) => LEFT + ((across(x) - left) / (right - left)) * (WIDTH - LEFT - RIGHT);
    const py = (y) => HEIGHT - BOTTOM - ((y - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
    const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
    const clip = `clip-${document.querySelectorAll("svg").length}`;
    svg.append(make("clipPath", { id: clip }, make("rect", { x: LEFT, y: 0, width: WIDTH - LEFT, height: HEIGHT - BOTTOM })));
    const rows = ticks(low, high, 5), digits = decimals(rows);
    for (const tick of rows) {
      svg.append(make("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: py(tick), y2: py(tick) }));
      svg.append(make("text", { x: LEFT - 6, y: py(tick) + 4, "text-anchor": "end" }, short(tick, digits)));
    }
    const columns = log2 ? [...new Set(series.flatMap((s) => s.x))] : ticks(left, right, 5, whole ? 1 : 0);
    const places = log2 ? 0 : decimals(columns);
    for (const tick of columns) {
      svg.append(make("text", { x: px(tick), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, short(tick, places)));
    }
    svg.append(make("text", { x: WIDTH - RIGHT, y: HEIGHT - 1, "text-anchor": "end" }, xLabel));
    const named = [];
    for (const s of series) {
      if (lines) {
        const path = s.x.map((x, i) => `${i ? "L" : "M"}${px(x).toFixed(1)},${py(s.y[i]).toFixed(1)}`).join("");
        svg.append(make("path", { d: path, fill: "none", stroke: s.colour, "stroke-width": 1.8, "stroke-linejoin": "round", "clip-path": `url(#${clip})` }));
      }
      s.x.forEach((x, i) => {
        if (s.spread && s.spread[i]) svg.append(make("line", { x1: px(x), x2: px(x), y1: py(s.y[i] - s.spread[i]), y2: py(s.y[i] + s.spread[i]), stroke: s.colour, "stroke-width": 1.4 }));
        if (s.dots || lines && s.x.length === 1) svg.append(make("circle", { cx: px(x), cy: py(s.y[i]), r: 3.4, fill: s.colour }));
      });
      if (s.name) {
        const before = px(s.x[0]) > WIDTH * 0.62, x = px(s.x[0]) + (before ? -7 : 7), y = py(s.y[0]) - 6;
        const width = s.name.length * 5.5, from = before ? x - width : x;
        // A name that would run into another one is left to the tip.
        if (!named.some((other) => from < other.to && other.from < from + width && Math.abs(other.y - y) < 12)) {
          named.push({ from, to: from + width, y });
          svg.append(make("text", { x, y, "text-anchor": before ? "end" : "start" }, s.name));
        }
      }
    }
    const marker = make("line", { class: "axis", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
    svg.append(marker);
    const tip = make("div", { class: "tip", hidden: "" });
    const heading = yLabel ? `${title}, ${yLabel}` : title;
    const box = make("div", { class: "chart" }, make("h3", {}, title, yLabel ? make("span", { class: "unit" }, ` ${yLabel}`) : ""), asPicture(svg, heading, lines ? series : []), svg, tip);
    svg.addEventListener("pointermove", (event) => {
      const bounds = svg.getBoundingClientRect();
      const x = ((event.clientX - bounds.left) / bounds.width) * WIDTH;
      const near = series.map((s) => ({ s, i: s.x.reduce((best, value, i) => Math.abs(px(value) - x) < Math.abs(px(s.x[best]) - x) ? i : best, 0) }));
      const closest = near.reduce((a, b) => Math.abs(px(a.s.x[a.i]) - x) <= Math.abs(px(b.s.x[b.i]) - x) ? a : b);
      const at = px(closest.s.x[closest.i]);
      marker.setAttribute("x1", at); marker.setAttribute("x2", at); marker.setAttribute("visibility", "visible");
      const shown = near.filter(({ s, i }) => Math.abs(px(s.x[i]) - at) < 6).slice(0, 12);
      tip.replaceChildren(make("div", {}, `${xLabel} ${short(closest.s.x[closest.i])}`), ...shown.map(({ s, i }) => {
        const spread = s.spread && s.spread[i] ? ` ± ${short(s.spread[i])}` : "";
        return make("div", {}, swatch(s.colour), `${s.label ? s.label + "  " : ""}${short(s.y[i])}${spread}`);
      }));
      tip.hidden = false;
      const right = at > WIDTH / 2;
      tip.style.left = right ? "auto" : `${(at / WIDTH) * bounds.width + 10}px`;
      tip.style.right = right ? `${(1 - at / WIDTH) * bounds.width + 10}px` : "auto";
      tip.style.top = "26px";
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; marker.setAttribute("visibility", "hidden"); });
    parent.append(box);
  }

  const swatch = (value) => { const node = make("span", { class: "swatch" }); node.style.background = value; return node; };

  const curved = data.runs.filter((run) => Object.keys(run.curves).length);
  if (curved.length) {
    const section = one("curves");
    section.hidden = false;
    for (const [term, title, unit] of data.terms) {
      const series = data.runs.map((run) => ({ label: run.label, colour: colour(run.colour), curve: run.curves[term] })).filter((s) => s.curve && s.curve[0].length)
        .map(({ label, colour, curve: [x, y] }) => ({ label, colour, x, y }));
      if (series.length) chart(section.querySelector(".charts"), title, series, { xLabel: "step", yLabel: unit, settle: true, whole: true });
    }
    for (const [group, run] of new Map(curved.map((run) => [run.group, run]))) {
      section.querySelector(".legend").append(make("span", {}, swatch(colour(run.colour)), group));
    }
  }

  const measured = data.groups.filter((group) => group.metrics["test/rate"] && group.metrics["test/distortion"]);
  if (measured.length > 2) {
    const section = one("trade"), charts = section.querySelector(".charts");
    section.hidden = false;
    const points = measured.map((group, i) => ({
      label: group.label, name: measured.length <= 12 ? group.name : "", colour: colour(i), dots: true,
      x: [group.metrics["test/rate"][0]], y: [group.metrics["test/distortion"][0]], spread: [group.metrics["test/distortion"][1]],
    }));
    chart(charts, "distortion against rate", points, { lines: false, xLabel: "rate, nats", yLabel: "nats" });
    const dimensions = measured.map((group) => group.latent_dim);
    if (new Set(dimensions).size > 2 && new Set(dimensions).size === dimensions.length) {
      const ordered = [...measured].sort((a, b) => a.latent_dim - b.latent_dim);
      const names = { "test/elbo": "elbo", "test/iw_bound": "importance-weighted bound", "test/active_units": "active units",
        "test/knn_accuracy": "class told by nearest codes", "test/frechet_samples": "Fréchet distance of samples",
        "test/frechet_reconstructions": "Fréchet distance of reconstructions", "test/mse": "squared error of reconstructions",
        "test/trustworthiness": "trustworthiness of the plotted plane" };
      for (const [name, title] of Object.entries(names)) {
        const having = ordered.filter((group) => group.metrics[name]);
        if (having.length < 3) continue;
        chart(charts, title, [{ label: "", colour: colour(0), dots: true, x: having.map((g) => g.latent_dim), y: having.map((g) => g.metrics[name][0]),
          spread: having.map((g) => g.metrics[name][1]) }], { log2: true, xLabel: "latent dimension" });
      }
    } else section.querySelector("h2").textContent = "Rate and distortion";
  }

  // Parallel coordinates: a line for each group through all that differs, and what came of it
  const differing = data.heads.map((head, i) => ({ label: head, of: (group) => group.labels[i] }));
  if (differing.length > 1 && data.groups.length > 3) {
    const section = one("parallel"), HIGH = 300, SIDE = 70, GAP = 130, UP = 34, DOWN = 14;
    section.hidden = false;
    const measures = [["test/elbo", "elbo"], ["test/iw_bound", "bound"], ["test/rate", "rate"], ["test/knn_accuracy", "nearest codes"],
      ["test/frechet_samples", "Fréchet distance"]].filter(([name]) => data.groups.some((group) => group.metrics[name]))
      .map(([name, label]) => ({ label, of: (group) => group.metrics[name] && group.metrics[name][0], metric: true }));
    const all = [...differing, ...measures].map((axis) => {
      const values = data.groups.map(axis.of), known = values.filter((value) => value !== undefined && value !== null);
      const missing = (value) => value === "–";  // as runs.shown writes None
      const numbers = known.every((value) => missing(value) || value !== "" && !isNaN(value));
      const distinct = [...new Set(known)].sort((a, b) => missing(a) - missing(b) || (numbers ? a - b : String(a).localeCompare(b)));
      const [low, high] = [+distinct[0], +distinct[distinct.length - 1]];
      const log = numbers && !axis.metric && low > 0 && high / low > 30, scale = log ? Math.log : Number;
      // Options that are words, or few, are evenly spaced.
      const even = !axis.metric && (!numbers || distinct.length <= 12 || distinct.some(missing));
      const share = (value) => even ? (distinct.length > 1 ? distinct.indexOf(value) / (distinct.length - 1) : 0.5)
        : high > low ? (scale(+value) - scale(low)) / (scale(high) - scale(low)) : 0.5;
      return { ...axis, values, share, marks: even ? distinct : [...new Set([low, high])] };
    });
    const WIDE = 2 * SIDE + GAP * (all.length - 1);
    const svg = make("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `Parallel coordinates of ${all.map((axis) => axis.label).join(", ")}` });
    const across = (i) => SIDE + GAP * i, upwards = (share) => HIGH - DOWN - share * (HIGH - UP - DOWN);
    const judged = all.find((axis) => axis.metric), paths = data.groups.map((group, i) => {
      const at = all.map((axis, j) => [axis, j]).filter(([axis]) => axis.values[i] !== undefined && axis.values[i] !== null);
      const d = at.map(([axis, j], k) => `${k ? "L" : "M"}${across(j)},${upwards(axis.share(axis.values[i])).toFixed(1)}`).join("");
      const good = judged && judged.values[i] !== undefined ? judged.share(judged.values[i]) : 0;
      return make("path", { d, fill: "none", stroke: judged ? `hsl(${Math.round(20 + 200 * good)} 65% 52%)` : colour(0), "stroke-width": 1.3, opacity: 0.75 });
    });
    const line = make("path", { fill: "none", class: "picked", visibility: "hidden" });
    svg.append(...paths, line);
    all.forEach((axis, j) => {
      const x = across(j);
      svg.append(make("line", { class: "axis", x1: x, x2: x, y1: upwards(1), y2: upwards(0) }), make("text", { x, y: 14, "text-anchor": "middle", class: "name" }, axis.label));
      for (const mark of axis.marks) svg.append(make("text", { x: x + 5, y: upwards(axis.share(mark)) + 4, class: "mark" }, typeof mark === "number" ? short(mark, 1) : String(mark)));
    });
    const told = make("p", { class: "note", "aria-live": "polite" }, "\u00a0");
    svg.addEventListener("pointermove", (event) => {
      const bounds = svg.getBoundingClientRect();
      const x = ((event.clientX - bounds.left) / bounds.width) * WIDE, y = ((event.clientY - bounds.top) / bounds.height) * HIGH;
      const j = Math.min(all.length - 2, Math.max(0, Math.floor((x - SIDE) / GAP))), part = Math.min(1, Math.max(0, (x - across(j)) / GAP));
      let nearest = null, least = Infinity;
      data.groups.forEach((group, i) => {
        const ends = [all[j], all[j + 1]].map((axis) => axis.values[i]);
        if (ends.some((value) => value === undefined || value === null)) return;
        const [a, b] = [upwards(all[j].share(ends[0])), upwards(all[j + 1].share(ends[1]))], away = Math.abs(a + (b - a) * part - y);
        if (away < least) { least = away; nearest = i; }
      });
      if (nearest === null) return;
      line.setAttribute("d", paths[nearest].getAttribute("d"));
      line.setAttribute("visibility", "visible");
      told.textContent = `${data.groups[nearest].label}: ${all.filter((axis) => axis.metric && axis.values[nearest] !== undefined).map((axis) => `${axis.label} ${short(axis.values[nearest], 1)}`).join(", ")}`;
    });
    svg.addEventListener("pointerleave", () => { line.setAttribute("visibility", "hidden"); told.textContent = "\u00a0"; });
    section.append(make("div", { class: "chart wide" }, asPicture(svg, "Parallel coordinates", []), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Parallel coordinates" }, svg)), told);
  }

  const axes = data.axes.filter(([name]) => data.groups.filter((group) => group.metrics[name]).length > 2);
  if (axes.length > 1) {
    const section = one("any"), selects = { across: one("across"), up: one("up") };
    section.hidden = false;
    for (const [name, label] of axes) for (const select of Object.values(selects)) select.append(make("option", { value: name }, label));
    const usual = { across: "test/rate", up: "test/mse" };
    const draw = () => {
      const [x, y] = [selects.across, selects.up].map((select) => axes.find(([name]) => name === select.value));
      const having = data.groups.map((group, i) => ({ group, i })).filter(({ group }) => group.metrics[x[0]] && group.metrics[y[0]]);
      section.querySelector(".charts").replaceChildren();
      if (!having.length) return section.querySelector(".charts").append("No run has both.");
      chart(section.querySelector(".charts"), `${y[1]} against ${x[1]}`, having.map(({ group, i }) => ({
        label: group.label, name: having.length <= 12 ? group.name : "", colour: colour(i), dots: true,
        x: [group.metrics[x[0]][0]], y: [group.metrics[y[0]][0]], spread: [group.metrics[y[0]][1]],
      })), { lines: false, xLabel: [x[1], x[2]].filter(Boolean).join(", "), yLabel: y[2] });
    };
    for (const [axis, select] of Object.entries(selects)) {
      const wanted = [view.get(axis), usual[axis], axes[axis === "up" ? 1 : 0][0]];
      select.value = wanted.find((name) => axes.some(([known]) => known === name));
      select.addEventListener("change", () => { keep(axis, select.value); draw(); });
    }
    draw();
  }

  // The latent explorer
  const explored = data.runs.filter((run) => run.explorer);
  const decodedSheets = new Map();
  function sheet(key) {
    if (!decodedSheets.has(key)) decodedSheets.set(key, new Promise((resolve) => {
      const image = new Image();
      image.onload = () => {
        const canvas = make("canvas", { width: image.width, height: image.height });
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        resolve({ width: image.width, pixels: context.getImageData(0, 0, image.width, image.height).data });
      };
      image.src = data.sheets[key];
    }));
    return decodedSheets.get(key);
  }

  if (explored.length) {
    one("explorer").hidden = false;
    const map = one("map"), choice = one("explored"), kind = one("kind"), context = map.getContext("2d");
    explored.forEach((run, i) => choice.append(make("option", { value: i }, run.label)));
    let explorer, lattice, images, point, start = null, dragging = false, hiddenClasses = new Set(), again = () => {};

    const line = () => explorer.codes[0].length === 1;
    const label = (i) => explorer.labels ? explorer.labels[i] : 0;
    const span = (axis) => explorer.box[1][axis] - explorer.box[0][axis];
    const place = ([x, y]) => [((x - explorer.box[0][0]) / span(0)) * map.width, (1 - (y - explorer.box[0][1]) / span(1)) * map.height];

    // A point of the plane decoded: the four nearest cells of the lattice, blended.
    function decode([x, y]) {
      const [height, width] = explorer.size, { rows, columns } = explorer.lattice;
      const clamp = (value, most) => Math.min(Math.max(value, 0), most);
      const u = clamp(((x - explorer.box[0][0]) / span(0)) * (columns - 1), columns - 1);
      const v = rows === 1 ? 0 : clamp((1 - (y - explorer.box[0][1]) / span(1)) * (rows - 1), rows - 1);
      const c = Math.min(Math.floor(u), Math.max(columns - 2, 0)), r = Math.min(Math.floor(v), Math.max(rows - 2, 0));
      const fu = u - c, fv = v - r, image = new ImageData(width, height);
      for (const [dr, dc, weight] of [[0, 0, (1 - fu) * (1 - fv)], [0, 1, fu * (1 - fv)], [1, 0, (1 - fu) * fv], [1, 1, fu * fv]]) {
        if (weight) add(image, lattice, Math.min(c + dc, columns - 1), kind.selectedIndex * rows + Math.min(r + dr, rows - 1), weight);
      }
      return finish(image);
    }

    const sums = new WeakMap();
    function add(image, source, column, row, weight) {
      const { width, height } = image;
      if (!sums.has(image)) sums.set(image, new Float32Array(4 * width * height));
      const sum = sums.get(image);
      for (let y = 0; y < height; y++) {
        let from = 4 * ((row * height + y) * source.width + column * width), to = 4 * y * width;
        for (let x = 0; x < 4 * width; x++) sum[to++] += weight * source.pixels[from++];
      }
    }
    function finish(image) {
      sums.get(image).forEach((value, i) => { image.data[i] = Math.round(value); });
      return image;
    }

    function draw(canvas, image) {
      canvas.width = image.width; canvas.height = image.height;
      canvas.getContext("2d").putImageData(image, 0, 0);
    }

    function nearestIndex([x, y]) {
      let best = -1, least = Infinity;
      explorer.codes.forEach((code, i) => {
        if (hiddenClasses.has(label(i))) return;
        const dx = (code[0] - x) / span(0), dy = line() ? 0 : (code[1] - y) / span(1);
        if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = i; }
      });
      return best;
    }

    // Without a second coordinate, classes lie in bands.
    const position = (i) => line() ? [explorer.codes[i][0], explorer.box[0][1] + span(1) * (1 - (label(i) + 0.5 + 0.6 * (((i * 0.618) % 1) - 0.5)) / Math.max(explorer.classes.length, 1))] : explorer.codes[i];

    function drawMap() {
      const scale = window.devicePixelRatio || 1, side = map.clientWidth;
      if (!side) return;
      map.width = side * scale; map.height = side * scale;
      context.fillStyle = variable("--paper");
      context.fillRect(0, 0, map.width, map.height);
      context.globalAlpha = 0.8;
      const order = explorer.codes.map((_, i) => (i * 7919) % explorer.codes.length);  // no class covers the others
      for (const i of new Set([...order, ...explorer.codes.keys()])) {
        if (hiddenClasses.has(label(i))) continue;
        const [x, y] = place(position(i));
        context.beginPath();
        context.arc(x, y, 3 * scale, 0, 2 * Math.PI);
        context.fillStyle = colour(label(i));
        context.fill();
      }
      context.globalAlpha = 1;
      context.strokeStyle = context.fillStyle = variable("--ink");
      context.lineWidth = 1.5 * scale;
      const [x, y] = place(point);
      if (start) {
        const [a, b] = place(start);
        context.beginPath(); context.moveTo(a, b); context.lineTo(x, y); context.stroke();
        context.beginPath(); context.arc(a, b, 4 * scale, 0, 2 * Math.PI); context.fill();
      }
      context.beginPath(); context.arc(x, y, 7 * scale, 0, 2 * Math.PI); context.stroke();
      context.font = `${11 * scale}px system-ui, sans-serif`;
      context.fillStyle = variable("--quiet");
      const [[left, bottom], [right, top]] = explorer.box;
      context.textAlign = "left"; context.fillText(short(left), 6 * scale, map.height - 6 * scale);
      context.textAlign = "right"; context.fillText(short(right), map.width - 6 * scale, map.height - 6 * scale);
      context.textAlign = "left";
      if (!line()) { context.fillText(short(top), 6 * scale, 15 * scale); context.fillText(short(bottom), 6 * scale, map.height - 22 * scale); }
    }

    function show() {
      if (!lattice) return;
      drawMap();
      draw(one("decoded"), decode(point));
      const i = nearestIndex(point);
      const caption = one("nearest-class");
      if (i >= 0) {
        const [height, width] = explorer.size, image = new ImageData(width, height);
        add(image, images, i % explorer.images.columns, Math.floor(i / explorer.images.columns), 1);
        draw(one("nearest"), finish(image));
        caption.textContent = explorer.labels ? `nearest test image: ${explorer.classes[label(i)] ?? label(i)}` : "nearest test image";
      } else caption.textContent = "every class is switched off";
      const axes = explorer.exact ? explorer.axes ?? ["z₁", "z₂"] : ["component 1", "component 2"];
      const coordinate = (axis) => `${axes[axis]} = ${point[axis].toFixed(2).replace("-", "−")}`;
      one("position").textContent = line() ? coordinate(0) : `${coordinate(0)}, ${coordinate(1)}`;
      const strip = one("strip"), [height, width] = explorer.size, shown = 9;
      strip.width = shown * width; strip.height = height;
      if (start) for (let k = 0; k < shown; k++) {
        const t = k / (shown - 1);
        strip.getContext("2d").putImageData(decode([0, 1].map((axis) => start[axis] + t * (point[axis] - start[axis]))), k * width, 0);
      }
    }

    function pointed(event) {
      const bounds = map.getBoundingClientRect();
      const share = (value, least, size) => Math.min(Math.max((value - least) / size, 0), 1);
      return [explorer.box[0][0] + share(event.clientX, bounds.left, bounds.width) * span(0),
        explorer.box[0][1] + (1 - share(event.clientY, bounds.top, bounds.height)) * span(1)];
    }
    map.addEventListener("pointerdown", (event) => { point = pointed(event); start = point; dragging = true; map.setPointerCapture(event.pointerId); show(); });
    map.addEventListener("pointermove", (event) => { if (dragging || !start || event.pointerType === "mouse" && start === null) { point = pointed(event); show(); } });
    map.addEventListener("pointerup", (event) => {
      dragging = false;
      // A press without a drag lets go of an interpolation.
      if (start && Math.hypot((point[0] - start[0]) / span(0), (point[1] - start[1]) / span(1)) < 0.01) start = null;
      show();
    });
    map.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (move) point = point.map((value, axis) => Math.min(Math.max(value + (move[axis] * span(axis)) / (event.shiftKey ? 10 : 40), explorer.box[0][axis]), explorer.box[1][axis]));
      else if (event.key === "Enter") start = start ? null : point;
      else if (event.key === "Escape") start = null;
      else return;
      event.preventDefault();
      show();
    });

    async function choose() {
      explorer = explored[choice.value].explorer;
      lattice = null;
      const current = explorer;
      start = null;
      hiddenClasses = new Set();
      point = [0, 1].map((axis) => (explorer.box[0][axis] + explorer.box[1][axis]) / 2);
      // A conditional decoder has a lattice for each class; without one, there is a single, nameless kind.
      one("kinds").hidden = !explorer.decoded.length;
      const kinds = explorer.decoded.length ? explorer.decoded : [""];
      kind.replaceChildren(...kinds.map((label) => make("option", { value: label }, explorer.classes[label] ?? label)));
      const share = explorer.explained.map((value) => `${(100 * value).toFixed(0)} %`);
      one("plane").textContent = !explorer.exact ? `The plane of the two leading principal components of the codes: ${share[0]} and ${share[1]} of their variance. What lies outside the plane is not shown.`
        : line() ? `The latent ${explorer.axes ? "circle, by angle in radians" : "line"}${explorer.labels ? "; classes in bands" : ""}.`
        : explorer.axes ? `The latent sphere, by ${explorer.axes.join(" and ")} in radians: codes of test images.`
        : "The latent plane: codes of test images.";
      const classes = one("classes");
      classes.hidden = !explorer.classes.length;
      classes.replaceChildren(classes.firstElementChild, ...explorer.classes.map((name, label) => {
        const box = make("input", { type: "checkbox", checked: "" });
        box.addEventListener("change", () => { hiddenClasses[box.checked ? "delete" : "add"](label); show(); });
        return make("label", {}, box, " ", swatch(colour(label)), name);
      }));
      sliders();
      const [cells, real] = await Promise.all([sheet(explorer.lattice.sheet), sheet(explorer.images.sheet)]);
      if (explorer !== current) return;
      [lattice, images] = [cells, real];
      show();
    }

    function sliders() {
      const current = explorer, wanted = !explorer.exact && explorer.dimensions.length > 0;
      one("sliders").hidden = !wanted;
      again = () => {};
      if (!wanted) return;
      const [height, width] = explorer.size, middle = (explorer.values.length - 1) >> 1;
      const all = explorer.dimensions.map((dimension, row) => {
        const slider = make("input", { type: "range", min: 0, max: explorer.values.length - 1, value: middle, "aria-label": `dimension ${dimension + 1}` });
        const value = make("output", {}, short(explorer.values[middle]));
        slider.addEventListener("input", () => {
          all.forEach((other) => { if (other.row !== row) { other.slider.value = middle; other.value.textContent = short(current.values[middle]); } });
          value.textContent = short(current.values[slider.value]);
          slide(+slider.value, row);
        });
        return { row, slider, value, node: make("div", { class: "slider" }, make("span", {}, `z${dimension + 1}`), slider, value) };
      });
      one("slider-list").replaceChildren(...all.map(({ node }) => node));
      async function slide(column, row) {
        again = () => slide(column, row);
        const source = await sheet(current.slides);
        if (explorer !== current) return;
        const image = new ImageData(width, height);
        add(image, source, column, kind.selectedIndex * current.dimensions.length + row, 1);
        draw(one("slide"), finish(image));
      }
      slide(middle, 0);
    }

    choice.addEventListener("change", choose);
    kind.addEventListener("change", () => { show(); again(); });
    addEventListener("resize", show);
    redraw.push(show);
    choose();
    window.latentExplorer = { decode: (at) => decode(at), go: (at) => { point = at; show(); }, ready: () => Boolean(lattice) };
  }
})();
