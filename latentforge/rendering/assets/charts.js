// Draws every .lf-chart of the page with plotly, in the page's colours for light or dark mode.
// A map shows the image of the nearest point and the decoded image of the pointer's position.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const still = matchMedia("(pointer: coarse)").matches; // touch scrolls the page, not the chart
  const drawn = [];

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const element = (tag, name, parent) => {
    const made = document.createElement(tag);
    made.className = name;
    parent.append(made);
    return made;
  };
  const short = (value) => (Math.abs(value) < 1000 ? value.toFixed(2) : value.toPrecision(4));

  function colours(layout) {
    const fg = css("--fg"), line = css("--line"), muted = css("--muted");
    const look = {
      "font.color": fg, "font.family": "system-ui, sans-serif", "hoverlabel.bgcolor": css("--bg"),
      "hoverlabel.bordercolor": line, "hoverlabel.font.color": fg, "modebar.color": muted,
      "modebar.activecolor": fg, "modebar.bgcolor": "rgba(0,0,0,0)",
    };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      look[`${axis}.gridcolor`] = line;
      look[`${axis}.tickcolor`] = line;
    }
    return look;
  }

  // A trace's `meta.colours` maps its attributes to the CSS variables of the page's colours.
  async function recolour(plot) {
    const alike = {};
    plot.data.forEach(({ meta }, i) => {
      const look = JSON.stringify((meta && meta.colours) || {});
      (alike[look] = alike[look] || []).push(i);
    });
    await Plotly.relayout(plot, colours(plot.layout));
    for (const [look, traces] of Object.entries(alike)) {
      const wanted = Object.entries(JSON.parse(look)).map(([attribute, name]) => [attribute, css(name)]);
      if (wanted.length) await Plotly.restyle(plot, Object.fromEntries(wanted), traces);
    }
  }

  // The pointer's position in data coordinates, and pixels per data unit; null outside the axes.
  function place(plot, event) {
    const area = plot.querySelector(".nsewdrag").getBoundingClientRect();
    const u = (event.clientX - area.left) / area.width, v = (area.bottom - event.clientY) / area.height;
    if (u < 0 || u > 1 || v < 0 || v > 1) return null;
    const [x0, x1] = plot.layout.xaxis.range, [y0, y1] = plot.layout.yaxis.range;
    return { x: x0 + u * (x1 - x0), y: y0 + v * (y1 - y0),
      perX: area.width / (x1 - x0), perY: area.height / (y1 - y0) };
  }

  function nearest(plot, at, reach) {
    let found = null, best = reach * reach;
    for (const trace of plot.data) {
      if (!trace.customdata || trace.visible === "legendonly") continue;
      for (let i = 0; i < trace.x.length; i++) {
        const dx = (trace.x[i] - at.x) * at.perX, dy = (trace.y[i] - at.y) * at.perY;
        const distance = dx * dx + dy * dy;
        if (distance <= best) {
          best = distance;
          found = { x: trace.x[i], y: trace.y[i], cell: trace.customdata[i],
            name: trace.text ? trace.text[i] : trace.name, value: trace.marker.color[i] };
        }
      }
    }
    return found;
  }

  async function pixels(sprite) {
    const image = new Image();
    image.src = sprite.src;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context;
  }

  function canvasFor(sprite, parent) {
    const canvas = element("canvas", "", parent);
    [canvas.width, canvas.height] = [sprite.width, sprite.height];
    return canvas;
  }

  const parser = new DOMParser(); // plotly's text is escaped; a tooltip shows it unescaped
  const plain = (text) => parser.parseFromString(text.replaceAll("<", "&lt;"), "text/html").body.textContent;

  function tip(box, plot, content, sheet) {
    const shown = element("div", "lf-tip", box), sprite = content.thumbnails;
    const canvas = sprite && canvasFor(sprite, shown);
    if (canvas) canvas.style.width = `${sprite.width * Math.max(1, Math.round(96 / sprite.width))}px`;
    const said = element("div", "", shown), value = element("div", "", shown);
    const where = element("div", "lf-where", shown);
    return (at, event) => {
      const point = at && nearest(plot, at, event.pointerType === "touch" ? 28 : 14);
      shown.style.display = point ? "block" : "none";
      if (!point) return;
      if (canvas) {
        const column = point.cell % sprite.columns, row = Math.floor(point.cell / sprite.columns);
        const cell = sheet.getImageData(
          column * sprite.width, row * sprite.height, sprite.width, sprite.height);
        canvas.getContext("2d").putImageData(cell, 0, 0);
      }
      const [a, b] = content.axes;
      said.textContent = content.labelled ? plain(point.name) : "";
      if ("values" in content) value.textContent = `${content.values} ${+point.value.toPrecision(4)}`.trim();
      where.textContent = `${a} ${short(point.x)}, ${b} ${short(point.y)}`;
      const around = box.getBoundingClientRect();
      const x = event.clientX - around.left, y = event.clientY - around.top;
      const left = x + 16 + shown.offsetWidth > around.width ? x - 16 - shown.offsetWidth : x + 16;
      shown.style.left = `${Math.max(0, Math.min(left, around.width - shown.offsetWidth))}px`;
      shown.style.top = `${Math.max(0, y - 16 - shown.offsetHeight)}px`;
    };
  }

  function plane(box, plot, content, sheet) {
    const knots = content.plane, figure = element("figure", "lf-decoded", box);
    const canvas = canvasFor(knots, figure), said = element("figcaption", "", figure);
    const here = element("div", "lf-here", box);
    const all = sheet.getImageData(0, 0, sheet.canvas.width, sheet.canvas.height);
    const out = new ImageData(knots.width, knots.height);
    const step = (ends, count) => (ends[1] - ends[0]) / Math.max(1, count - 1);
    const dx = step(knots.x, knots.columns), dy = step(knots.y, knots.rows);
    let now = { x: (knots.x[0] + knots.x[1]) / 2, y: (knots.y[0] + knots.y[1]) / 2 };

    function show(at) {
      const u = dx ? (at.x - knots.x[0]) / dx : 0, v = dy ? (at.y - knots.y[0]) / dy : 0;
      const inside = u > -0.5 && v > -0.5 && u < knots.columns - 0.5 && v < knots.rows - 0.5;
      figure.classList.toggle("lf-outside", !inside);
      const name = ([a, b], p) => `${a} ${short(p.x)}, ${b} ${short(p.y)}`;
      said.textContent = name(content.axes, at) + (inside ? "" : " is outside the decoded region");
      mark(at);
      if (!inside) return;
      now = at;
      const at0 = (t, count) => Math.min(Math.max(Math.floor(t), 0), Math.max(0, count - 2));
      const c = at0(u, knots.columns), r = at0(v, knots.rows);
      const c1 = Math.min(c + 1, knots.columns - 1), r1 = Math.min(r + 1, knots.rows - 1);
      const part = (t) => Math.min(Math.max(t, 0), 1);
      const a = part(u - c), b = part(v - r);
      const corners = [[c, r, (1 - a) * (1 - b)], [c1, r, a * (1 - b)], [c, r1, (1 - a) * b], [c1, r1, a * b]];
      for (let y = 0; y < knots.height; y++) {
        for (let x = 0; x < knots.width; x++) {
          for (let channel = 0; channel < 4; channel++) {
            let sum = 0;
            for (const [column, row, weight] of corners) {
              const from = (row * knots.height + y) * all.width + column * knots.width + x;
              sum += weight * all.data[4 * from + channel];
            }
            out.data[4 * (y * knots.width + x) + channel] = Math.round(sum);
          }
        }
      }
      canvas.getContext("2d").putImageData(out, 0, 0);
    }

    function mark(at) {
      const area = plot.querySelector(".nsewdrag").getBoundingClientRect();
      const around = box.getBoundingClientRect();
      const [x0, x1] = plot.layout.xaxis.range, [y0, y1] = plot.layout.yaxis.range;
      const u = (at.x - x0) / (x1 - x0), v = (at.y - y0) / (y1 - y0);
      here.hidden = u < 0 || u > 1 || v < 0 || v > 1;
      here.style.left = `${area.left - around.left + u * area.width}px`;
      here.style.top = `${area.bottom - around.top - v * area.height}px`;
    }

    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Decoded image at a position; the arrow keys move the position");
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!way) return;
      event.preventDefault();
      const snap = (value, ends, size, count, by) => {
        const knot = Math.round(size ? (value - ends[0]) / size : 0) + by;
        return ends[0] + Math.min(Math.max(knot, 0), count - 1) * size;
      };
      show({ x: snap(now.x, knots.x, dx, knots.columns, way[0]), y: snap(now.y, knots.y, dy, knots.rows, way[1]) });
    });
    show(now);
    plot.on("plotly_afterplot", () => mark(now));
    return (at) => at && show(at);
  }

  async function map(box, plot, content) {
    const followers = [];
    const sheets = [content.thumbnails, content.plane].map((sprite) => sprite && pixels(sprite));
    const [thumbnails, knots] = await Promise.all(sheets);
    if (content.plane) followers.push(plane(box, plot, content, knots));
    followers.push(tip(box, plot, content, thumbnails));
    const follow = (event) => {
      const dragging = event.pointerType === "mouse" && event.buttons;
      const at = dragging ? null : place(plot, event);
      followers.forEach((follower) => follower(at, event));
    };
    for (const kind of ["pointermove", "pointerdown"]) plot.addEventListener(kind, follow);
    plot.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") followers.at(-1)(null, event); // after a tap the image stays
    });
  }

  // The frame at a fraction of the paths: shortened lines, and the stars at their current ends.
  function grown(whole, part) {
    const frame = { data: [], traces: [] };
    const cut = ({ x, y }) => {
      const count = 1 + Math.round(part * (x.length - 1));
      return { x: x.slice(0, count), y: y.slice(0, count) };
    };
    whole.forEach((trace, i) => {
      const { grows, ends } = trace.meta || {};
      if (!grows && !ends) return;
      const last = (axis) => ends.map((line) => cut(whole[line])[axis].at(-1));
      frame.data.push(grows ? cut(trace) : { x: last("x"), y: last("y") });
      frame.traces.push(i);
    });
    return frame;
  }

  function film(box, plot, count) {
    const whole = plot.data.map(({ x, y, meta }) => ({ x, y, meta }));
    const bar = element("div", "lf-film", box);
    const button = element("button", "", bar), slider = element("input", "", bar);
    button.type = "button";
    Object.assign(slider, { type: "range", min: 0, max: count - 1, value: count - 1 });
    slider.setAttribute("aria-label", "position along the paths");
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
    const show = () => Plotly.animate(plot, grown(whole, slider.value / (count - 1)),
      { mode: "immediate", frame: { duration: 0, redraw: false }, transition: { duration: 0 } });
    slider.addEventListener("input", () => { stop(); show(); });
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (+slider.value === count - 1) slider.value = 0;
      button.textContent = "Pause";
      show();
      timer = setInterval(() => {
        slider.value = +slider.value + 1;
        show();
        if (+slider.value === count - 1) stop();
      }, 150);
    });
    stop();
  }

  async function draw(box) {
    const plot = box.querySelector(".lf-plot");
    const content = JSON.parse(box.querySelector("script").textContent);
    const { data, layout } = content.figure;
    const tools = content.axes && !still;
    if (still) layout.dragmode = false;
    if (tools) layout.margin.t = 32; // space for plotly's toolbar
    const config = { displaylogo: false, displayModeBar: tools ? "hover" : false,
      doubleClick: still ? false : "reset+autosize", // otherwise a tap would redraw the chart
      modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
    await Plotly.newPlot(plot, { data, layout, config });
    drawn.push(plot);
    widths.set(plot, plot.clientWidth); // an observer reports a new element immediately
    resized.observe(plot);
    await recolour(plot);
    if (content.axes) await map(box, plot, content);
    if (content.frames) film(box, plot, content.frames);
    box.classList.add("lf-ready");
  }

  // The width of a chart changes with the window, and when a folded part of the page is opened.
  const widths = new WeakMap();
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const width = target.clientWidth;
      if (width && width !== widths.get(target)) Plotly.Plots.resize(target);
      widths.set(target, width);
    }
  });

  dark.addEventListener("change", () => drawn.forEach(recolour));
  document.addEventListener("DOMContentLoaded", async () => {
    for (const box of document.querySelectorAll(".lf-chart")) {
      await draw(box);
      await new Promise((done) => setTimeout(done)); // lets the page respond between two charts
    }
    document.documentElement.classList.add("lf-done");
  });
})();
