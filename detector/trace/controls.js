// Controls and figures of the panel: sliders, choices, bars, tables, curves.
"use strict";

const Controls = (() => {
  let ids = 0;
  const figure = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
  const amount = (count) => count.toLocaleString("en");
  const counted = (count, one, several = `${one}s`) => `${amount(count)} ${count === 1 ? one : several}`;
  const corners = (box) => box.map((value) => Math.round(value)).join(", ");

  /** A slider with its value beside it. show(value) -> text. */
  function slider(label, { min, max, step, value, show = (v) => v, change }) {
    const id = `c${ids++}`;
    const output = el("output", { for: id }, show(value));
    const input = el("input", {
      type: "range",
      id,
      min,
      max,
      step,
      value,
      "aria-valuetext": show(value),
      input: () => {
        const now = Number(input.value);
        output.textContent = show(now);
        input.setAttribute("aria-valuetext", show(now));
        change(now);
      },
    });
    const node = el("p", { class: "slider" }, el("label", { for: id }, label), input, output);
    node.set = (now, text = show(now)) => {
      input.value = now;
      output.textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    return node;
  }

  /** A choice of one of several: options [[value, text]]. */
  function choice(label, options, value, change) {
    const id = `c${ids++}`;
    const select = el(
      "select",
      { id, change: () => change(select.value) },
      ...options.map(([own, text]) => el("option", { value: own, selected: String(own) === String(value) }, text)),
    );
    return el("p", { class: "choice" }, el("label", { for: id }, label), select);
  }

  function tick(label, checked, change) {
    const input = el("input", { type: "checkbox", checked, change: () => change(input.checked) });
    return el("label", { class: "tick" }, input, ` ${label}`);
  }

  function button(label, press, attributes = {}) {
    return el("button", { type: "button", click: press, ...attributes }, label);
  }

  /** Rows of [name, share in 0..1, text, kind]. */
  function bars(rows) {
    return el(
      "div",
      { class: "bars" },
      ...rows.map(([name, share, text, kind = ""]) =>
        el(
          "div",
          { class: `bar ${kind}` },
          el("span", { class: "name" }, name),
          el("span", { class: "track" }, el("span", { style: `width:${Math.max(0, Math.min(1, share)) * 100}%` })),
          el("span", { class: "figure" }, text),
        ),
      ),
    );
  }

  function table(heading, rows, caption = "") {
    return el(
      "div",
      { class: "wide", tabindex: "0", role: "region", "aria-label": caption || heading[0] },
      el(
        "table",
        {},
        caption ? el("caption", {}, caption) : null,
        el("thead", {}, el("tr", {}, ...heading.map((text) => el("th", { scope: "col" }, text)))),
        el(
          "tbody",
          {},
          ...rows.map((row) =>
            el("tr", {}, ...row.map((cell, at) => el(at ? "td" : "th", at ? {} : { scope: "row" }, cell))),
          ),
        ),
      ),
    );
  }

  /**
   * How many regions have which value, over the range of a slider: bars, those from the threshold on in colour.
   * Returns a figure whose set(threshold) colours it again. The heights are square roots, so that few are seen too.
   */
  function histogram(values, { min, max, name }) {
    const bins = 48,
      width = 480,
      height = 44,
      counts = new Array(bins).fill(0);
    for (const value of values) {
      if (value >= min) counts[Math.min(Math.floor(((value - min) / (max - min)) * bins), bins - 1)]++;
    }
    const most = Math.max(...counts, 1),
      below = values.filter((value) => value < min).length;
    const bars = counts.map((count, at) => {
      const high = count ? Math.max(Math.sqrt(count / most) * (height - 2), 2) : 0;
      return el("rect", { x: (at * width) / bins + 0.5, y: height - high, width: width / bins - 1, height: high });
    });
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" }, ...bars);
    const text = below ? `${amount(below)} more lie below the slider's range.` : "";
    const node = el("figure", { class: "histogram" }, svg, el("figcaption", {}, `${name}, by their value. ${text}`));
    node.set = (threshold) => {
      bars.forEach((bar, at) =>
        bar.setAttribute("class", min + ((at + 0.5) * (max - min)) / bins >= threshold ? "in" : "out"),
      );
      const passing = values.filter((value) => value >= threshold).length;
      svg.setAttribute(
        "aria-label",
        `${name}: ${amount(passing)} of ${amount(values.length)} from ${figure(threshold)} on`,
      );
    };
    return node;
  }

  /** Lines [{name, points: [[x, y]], kind}] in a unit square; mark: an x, or a point [x, y]. */
  function curve(lines, { x, y, mark = null, log = false, max = 1 }) {
    const left = 34,
      width = 300,
      height = 170,
      bottom = 26;
    const across = (value) =>
      left + (width - left - 6) * (log ? Math.log(Math.max(value, 1)) / Math.log(Math.max(max, 2)) : value / max);
    const up = (value) => 6 + (height - bottom - 6) * (1 - value);
    const svg = el("svg", {
      class: "curve",
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `${y} over ${x}: ${lines.map((line) => line.name).join(", ")}`,
    });
    for (const share of [0, 0.5, 1]) {
      svg.append(
        el("line", { class: "grid", x1: left, x2: width - 6, y1: up(share), y2: up(share) }),
        el("text", { x: left - 5, y: up(share) + 4, "text-anchor": "end" }, String(share)),
      );
    }
    svg.append(
      el("text", { x: width - 6, y: height - 3, "text-anchor": "end" }, log ? `${x}, log scale` : x),
      el("text", { x: left, y: height - 3 }, `${log ? 1 : 0} to ${amount(max)}`),
    );
    for (const { points, kind = "" } of lines) {
      svg.append(
        el("polyline", {
          class: kind,
          points: points.map(([a, b]) => `${across(a).toFixed(1)},${up(b).toFixed(1)}`).join(" "),
        }),
      );
    }
    if (typeof mark === "number")
      svg.append(el("line", { class: "mark", x1: across(mark), x2: across(mark), y1: up(1), y2: up(0) }));
    else if (mark) svg.append(el("circle", { class: "mark", cx: across(mark[0]), cy: up(mark[1]), r: 4 }));
    return el(
      "figure",
      { class: "plot" },
      svg,
      el(
        "figcaption",
        {},
        `${y}. `,
        ...lines.map((line) => el("span", { class: `key ${line.kind || ""}` }, line.name, " ")),
      ),
    );
  }

  return { figure, amount, counted, corners, slider, choice, tick, button, bars, table, histogram, curve };
})();

const { figure, amount, counted } = Controls;
