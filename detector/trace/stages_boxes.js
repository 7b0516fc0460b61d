// The stages between boxes and networks: proposals, regions.
"use strict";

function proposalsStage(panel, page) {
  const { trace, data } = page;
  const sources = Engine.unpack(data.proposals.sources).data,
    place = placesWithin(sources),
    largest = Math.max(...place, 1);
  let shown = Math.min(largest, 30),
    only = "";
  const used = data.sources
    .map((name, number) => [number, sourceName(name)])
    .filter(([number]) => sources.includes(number));
  const info = el("p", { class: "readout", "aria-live": "polite" }),
    plot = el("div");
  panel.append(
    Controls.slider("The first boxes of each source", {
      min: 1,
      max: largest,
      step: 1,
      value: shown,
      change: (value) => {
        shown = value;
        page.render();
      },
    }),
    Controls.choice("Source", [["", "all"], ...used], only, (value) => {
      only = value;
      page.render();
    }),
    info,
    plot,
    sourceTable(data, used),
    el("p", { class: "quiet" }, aboutCrops(data)),
  );
  return () => {
    const rows = [...sources.keys()].filter(
      (row) => place[row] <= shown && (only === "" || sources[row] === Number(only)),
    );
    for (const row of rows) {
      page.picture.box(trace.boxes.subarray(4 * row, 4 * row + 4), `source${sources[row] % 4}`, {
        title: `${sourceName(data.sources[sources[row]])}, number ${place[row]}`,
        opacity: rows.length > 200 ? 0.35 : 0.8,
      });
    }
    const first = page.objects.map(({ box }) => firstCovering(trace, sources, place, box, only));
    page.objects.forEach((object, at) =>
      page.picture.box(object.box, first[at] <= shown ? "truth" : "missed", {
        label: page.objects.length > 8 ? "" : page.nameOf(object),
        title: page.nameOf(object),
      }),
    );
    page.picture.key([
      ...used.map(([number, name]) => [`source${number % 4}`, name]),
      ["truth", "object that a drawn box covers"],
      ["missed", "object that none of them covers yet"],
    ]);
    info.textContent =
      `${amount(rows.length)} of ${amount(trace.count)} boxes are drawn.` +
      (first.length
        ? ` They cover ${first.filter((own) => own <= shown).length} of ${counted(first.length, "object")}: ` +
          "one of the boxes has an IoU of 0.5 or more with it."
        : "");
    plot.replaceChildren(
      page.objects.length
        ? recallPlot(page, sources, place, used, shown)
        : el(
            "p",
            { class: "quiet" },
            "Draw a box around an object on the picture to see after how many proposals one covers it.",
          ),
    );
    page.picture.drawn = (box) => page.addObject(box);
  };
}

const sourceName = (name) => ({ selective_search: "selective search", multibox: "MultiBox" })[name] || name;

/** Place of each proposal within its source, from 1. */
function placesWithin(sources) {
  const counts = {};
  return [...sources].map((source) => (counts[source] = (counts[source] || 0) + 1));
}

/** The place, within its source, of the first proposal that covers a box; Infinity for none. only: a source, or "". */
function firstCovering(trace, sources, place, box, only) {
  return place.reduce(
    (best, own, row) =>
      own < best && (only === "" || sources[row] === Number(only)) && Engine.iou(box, 0, trace.boxes, row) >= 0.5
        ? own
        : best,
    Infinity,
  );
}

function sourceTable(data, used) {
  return Controls.table(
    ["source", "found", "left out as copies", "kept"],
    used.map(([number, name]) => {
      const found = data.found[data.sources[number]] || 0,
        dropped = data.dropped[data.sources[number]];
      const out = dropped ? dropped.shape[0] : 0;
      return [name, amount(found), amount(out), amount(found - out)];
    }),
    "Where the boxes come from",
  );
}

function aboutCrops(data) {
  const { multibox } = data.settings.proposals;
  if (!multibox.weights) return "";
  return multibox.crops
    ? "MultiBox looked at the whole image and at overlapping squares of it, for small objects. " +
        "Its boxes of all of these are one source, joined and ordered before they come here."
    : "MultiBox looked at the whole image once.";
}

/** Recall at IoU 0.5 of the objects by the first n boxes of each source, and of each source alone. */
function recallPlot(page, sources, place, used, shown) {
  const { trace, objects } = page,
    largest = Math.max(...place, 1);
  const line = (only) => {
    const first = objects.map(({ box }) => firstCovering(trace, sources, place, box, only));
    return [...new Set([1, ...first.filter(Number.isFinite), largest])]
      .sort((a, b) => a - b)
      .flatMap((n) => [
        [n, first.filter((own) => own < n).length / objects.length],
        [n, first.filter((own) => own <= n).length / objects.length],
      ]);
  };
  const lines =
    used.length > 1 ? used.map(([number, name]) => ({ name, points: line(number), kind: `source${number % 4}` })) : [];
  const first = objects.map(({ box }) => firstCovering(trace, sources, place, box, ""));
  const words = objects.map(
    (object, at) => `${page.nameOf(object)}: ${Number.isFinite(first[at]) ? `box ${first[at]}` : "none"}`,
  );
  return el(
    "div",
    {},
    Controls.curve([...lines, { name: "all sources", points: line("") }], {
      x: "boxes of each source",
      y: "Recall: share of the objects that are covered",
      log: true,
      max: largest,
      mark: shown,
    }),
    el("p", { class: "quiet" }, `The first box, counted in each source, that covers an object: ${words.join("; ")}.`),
  );
}

function regionsStage(panel, page) {
  const { data, trace } = page;
  const gallery = el("div", { class: "gallery", role: "group", "aria-label": "Regions" });
  const info = el("p", { class: "readout", "aria-live": "polite" }),
    maps = el("div");
  panel.append(
    gallery,
    el("p", { class: "quiet" }, "These are what the network sees. Grey is outside the image."),
    info,
    maps,
  );
  for (const tile of data.tiles) {
    gallery.append(
      el(
        "button",
        { type: "button", class: "tile", "data-row": tile.row, click: () => page.set({}, { region: tile.row }) },
        el("img", { src: tile.image, alt: `Region ${tile.row + 1} as the network sees it`, loading: "lazy" }),
      ),
    );
  }
  return () => {
    for (const tile of gallery.children)
      tile.setAttribute("aria-pressed", String(Number(tile.dataset.row) === page.region));
    page.regionButtons(data.tiles.map((tile) => tile.row));
    if (page.region === null || page.region >= trace.count) {
      info.textContent = "Choose a region.";
      maps.replaceChildren();
      return;
    }
    const row = page.region,
      box = [...trace.boxes.subarray(4 * row, 4 * row + 4)];
    data.members.forEach((_, at) => page.picture.box(windowOf(page, at, row), at % 2 ? "window2" : "window"));
    page.picture.box(box, "chosen", { label: `region ${row + 1}` });
    page.picture.key([
      ["chosen", "the proposed box"],
      ["other", "other regions: click one"],
      ...data.members
        .slice(0, 2)
        .map((member, at) => [at % 2 ? "window2" : "window", `what member ${at + 1} sees, with context`]),
    ]);
    info.replaceChildren(
      el("span", {}, `Box ${Controls.corners(box)} (left, top, right, bottom, in pixels).`),
      ...data.members.map((_, at) => el("span", { class: "line" }, aboutCut(page, at, row))),
    );
    maps.replaceChildren(...data.members.map((member, at) => (member.kind === "maps" ? mapFigure(page, at, row) : "")));
  };
}

const windowOf = (page, at, row) => [...page.data.cuts[at].windows.data.subarray(4 * row, 4 * row + 4)];

/** Scale from the image to the level of the pyramid that a member cuts a region from. */
function levelScale(page, at, row) {
  const { data } = page,
    side = data.members[at].pyramid[data.cuts[at].levels.data[row]];
  return { side, scale: side / Math.sqrt(data.width * data.height) };
}

function aboutCut(page, at, row) {
  const member = page.data.members[at],
    window = windowOf(page, at, row);
  const context = `the box with a border of ${member.context} of the ${member.size} pixels`;
  if (member.kind === "warped")
    return `${page.memberName(at)} sees ${context}, stretched to ${member.size} × ${member.size}.`;
  const { side, scale } = levelScale(page, at, row);
  const cells = [(window[2] - window[0]) * scale, (window[3] - window[1]) * scale].map((length) =>
    figure(length / STRIDE, 1),
  );
  return (
    `${page.memberName(at)} sees ${context}, cut from the map of the whole image. ` +
    `With the image at the area of ${side} × ${side} pixels, the box is ${cells.join(" × ")} cells of that map. ` +
    `They become ${member.grid} × ${member.grid}.`
  );
}

const STRIDE = 16,
  FIRST_CENTRE = 14.5; // pixels from cell to cell of the map, and of its first centre (regions/maps.py)

/** The image under the grid of the map that a region is cut from, and the region's own grid. */
function mapFigure(page, at, row) {
  const { data } = page,
    { side, scale } = levelScale(page, at, row),
    { grid } = data.members[at];
  const [x1, y1, x2, y2] = windowOf(page, at, row);
  const svg = el("svg", {
    class: "map",
    viewBox: `0 0 ${data.width} ${data.height}`,
    role: "img",
    "aria-label": `The map's cells over the image, and the ${grid} × ${grid} cells of the region`,
  });
  svg.append(el("image", { href: data.image, width: data.width, height: data.height, preserveAspectRatio: "none" }));
  const lines = (from, to, every, kind, across) => {
    for (let place = from; place <= to + 1e-6; place += every) {
      svg.append(el("line", { class: kind, ...across(place) }));
    }
  };
  const start = (FIRST_CENTRE - STRIDE / 2) / scale,
    cell = STRIDE / scale;
  lines(start, data.width, cell, "cell", (x) => ({ x1: x, x2: x, y1: 0, y2: data.height }));
  lines(start, data.height, cell, "cell", (y) => ({ y1: y, y2: y, x1: 0, x2: data.width }));
  lines(x1, x2, (x2 - x1) / grid, "sample", (x) => ({ x1: x, x2: x, y1, y2 }));
  lines(y1, y2, (y2 - y1) / grid, "sample", (y) => ({ y1: y, y2: y, x1, x2 }));
  return el(
    "figure",
    {},
    svg,
    el(
      "figcaption",
      {},
      `White: the cells of the map, each ${STRIDE} pixels of the image at ${side} × ${side}. ` +
        `Yellow: the ${grid} × ${grid} cells that the region gets. ` +
        "Each is read from the four nearest cells of the map.",
    ),
  );
}
