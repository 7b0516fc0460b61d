// The stages that make boxes: superpixels, merging, proposals, regions. Each function fills its part of the panel once and
// returns what is to be done whenever the page changes.
"use strict";

const LETTERS = { C: "colour", T: "texture", S: "size", F: "fill" };
const SPACES = { hsv: "HSV", lab: "Lab", rgi: "rgI", h: "hue", i: "intensity" };

/** Scale boxes of the searched image to the image's own pixels. */
function toImage(page, box) {
  const { search, width, height } = page.data;
  const factors = [width / search.width, height / search.height];
  return [...box].map((value, at) => value * factors[at % 2]);
}

function superpixelsStage(panel, page) {
  const { search } = page.data;
  if (!search) return absent(panel, page, "This detector uses no selective search of its own, so there are no superpixels.");
  let scale = search.scale, at = 0;
  const info = el("p", { class: "readout", "aria-live": "polite" });
  const names = { 1: "1× (R-CNN)", 2: "2× (this paper)" };
  const scales = Object.keys(search.scales).map((key) => [key, names[key] || `${key}×`]);
  const parts = search.scales[scale].map((one, index) => [index, `${SPACES[one.space] || one.space}, k = ${one.k}`]);
  const compared = el("div", { class: "compare" });
  panel.append(
    Controls.choice("Colour space and threshold", parts, at, (value) => { at = Number(value); page.render(); }),
    Controls.choice("Size of the superpixels", scales, scale, (value) => { scale = value; page.render(); }),
    info, el("h3", {}, "Side by side"), compared);
  return () => {
    const segmentation = search.scales[scale][at];
    info.textContent = `${segmentation.boxes.shape[0]} superpixels of at least ${segmentation.minSize} pixels. Point at one to see it.`;
    compared.replaceChildren(...["1", "2"].filter((key) => search.scales[key]).map((key) => {
      const one = search.scales[key][at];
      const canvas = el("canvas", { role: "img", "aria-label": `${one.boxes.shape[0]} superpixels at ${key}×` });
      readMap(one).then((map) => paintSmall(canvas, map, page.picture.image));
      return el("figure", {}, canvas, el("figcaption", {}, `${names[key]}: ${one.boxes.shape[0]} superpixels`));
    }));
    readMap(segmentation).then((map) => {
      if (page.stage !== "superpixels") return;
      const paint = (shown) => page.picture.paint({ ...map, borders: true }, (number) => (number === shown ? [255, 220, 0, 190] : colourOf(number)));
      paint(-1);
      let last = -1;
      page.picture.hovered = (x, y) => {
        const column = Math.floor((x / page.data.width) * map.width), row = Math.floor((y / page.data.height) * map.height);
        const number = map.numbers[row * map.width + column];
        if (number === undefined || number === last) return;
        last = number;
        paint(number);
        const size = map.numbers.reduce((count, one) => count + (one === number), 0);
        info.textContent = `Superpixel ${number}: ${Controls.amount(size)} pixels.`;
      };
    });
  };
}

/** A small picture of superpixels, with their borders on the image. */
function paintSmall(canvas, map, image) {
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, map.width, map.height);
  context.fillStyle = "#ffe600";
  for (let at = 0; at < map.numbers.length; at++) {
    const right = (at + 1) % map.width ? map.numbers[at + 1] : map.numbers[at];
    const below = at + map.width < map.numbers.length ? map.numbers[at + map.width] : map.numbers[at];
    if (right !== map.numbers[at] || below !== map.numbers[at]) context.fillRect(at % map.width, Math.floor(at / map.width), 1, 1);
  }
}

function mergingStage(panel, page) {
  const { search } = page.data;
  if (!search) return absent(panel, page, "This detector uses no selective search of its own, so nothing was merged.");
  let chosen = 0, step = Math.max(search.hierarchies[0].parts.shape[0] - 25, 0);
  const own = search.scales[search.scale];
  const options = search.hierarchies.map((one, index) => {
    const { space, k } = own[one.segmentation];
    return [index, `${SPACES[space] || space}, k = ${k}, by ${[...one.similarities].map((letter) => LETTERS[letter]).join(", ")}`];
  });
  const slot = el("div"), values = el("div"), info = el("p", { class: "readout", "aria-live": "polite" });
  const steps = () => search.hierarchies[chosen].parts.shape[0];
  const makeSlider = () => Controls.slider("Merges done", { min: 0, max: steps(), step: 1, value: step, change: (value) => { step = value; page.render(); } });
  let slider = makeSlider();
  const go = (to) => { step = Math.min(Math.max(to, 0), steps()); slider.set(step); page.render(); };
  slot.append(slider);
  panel.append(
    Controls.choice("Hierarchy", options, chosen, (value) => {
      chosen = Number(value);
      step = Math.min(step, steps());
      slider = makeSlider();
      slot.replaceChildren(slider);
      page.render();
    }),
    slot,
    el("p", { class: "buttons" }, Controls.button("One back", () => go(step - 1)), Controls.button("One further", () => go(step + 1)),
      page.player(() => (step < steps() ? (go(step + 1), true) : false)), Controls.button("To the last", () => go(steps()))),
    info, values);
  return () => {
    const hierarchy = search.hierarchies[chosen], leaves = own[hierarchy.segmentation].boxes;
    const count = leaves.shape[0], parts = hierarchy.parts.data, ranks = hierarchy.ranks.data;
    const boxes = boxesOf(hierarchy, leaves);
    const owner = Int32Array.from({ length: count + steps() }, (_, number) => number);
    for (let at = 0; at < step; at++) owner[parts[2 * at]] = owner[parts[2 * at + 1]] = count + at;
    const find = (number) => { while (owner[number] !== number) number = owner[number]; return number; };
    const before = (number) => { while (owner[number] !== number && owner[number] < count + step - 1) number = owner[number]; return number; };
    const [a, b] = step ? [parts[2 * step - 2], parts[2 * step - 1]] : [-1, -1];
    readMap(own[hierarchy.segmentation]).then((map) => {
      if (page.stage !== "merging") return;
      page.picture.paint({ ...map, borders: false }, (number) => {
        const now = before(number);
        if (now === a) return [0, 114, 178, 215];
        if (now === b) return [230, 159, 0, 215];
        return colourOf(find(number), 110);
      });
    });
    if (!step) {
      info.textContent = `${count} superpixels and no merge yet. Each superpixel's own box is a proposal too.`;
      values.replaceChildren();
      return;
    }
    const box = toImage(page, boxes.subarray(4 * (count + step - 1), 4 * (count + step)));
    page.picture.box(box, "chosen", { label: `merge ${step}` });
    const rank = ranks[count + step - 1];
    const place = rank < 0 ? "It is narrower than 20 pixels or was cut, so it is not proposed." : `It is proposal ${Controls.amount(rank + 1)} of selective search's ${Controls.amount(search.boxes)}.`;
    info.textContent = `Merge ${step} of ${steps()}: the blue and the orange region, the two most similar neighbours, become one. ${place}`;
    const four = [...hierarchy.values.data.subarray(4 * step - 4, 4 * step)].map((value) => value / 255);
    const used = [...hierarchy.similarities].map((letter) => four["CTSF".indexOf(letter)]);
    values.replaceChildren(Controls.bars([
      ...[..."CTSF"].map((letter, at) => [LETTERS[letter], four[at], Controls.figure(four[at], 2), hierarchy.similarities.includes(letter) ? "" : "unused"]),
      ["mean of those in use", used.reduce((sum, value) => sum + value, 0) / used.length, Controls.figure(used.reduce((sum, value) => sum + value, 0) / used.length, 2), "total"],
    ]));
  };
}

/** Boxes of all regions of a hierarchy, superpixels first. */
function boxesOf(hierarchy, leaves) {
  if (hierarchy.boxes) return hierarchy.boxes;
  const count = leaves.shape[0], parts = hierarchy.parts.data, boxes = new Int32Array(4 * (count + hierarchy.parts.shape[0]));
  boxes.set(leaves.data);
  for (let at = 0; at < hierarchy.parts.shape[0]; at++) {
    const [a, b] = [4 * parts[2 * at], 4 * parts[2 * at + 1]], to = 4 * (count + at);
    for (let corner = 0; corner < 4; corner++) boxes[to + corner] = (corner < 2 ? Math.min : Math.max)(boxes[a + corner], boxes[b + corner]);
  }
  hierarchy.boxes = boxes;
  return boxes;
}

function proposalsStage(panel, page) {
  const { trace, data } = page;
  const sources = Engine.unpack(data.proposals.sources).data;
  let shown = Math.min(trace.count, 30), only = "";
  const used = data.sources.map((name, number) => [number, name]).filter(([number]) => sources.includes(number));
  const info = el("p", { class: "readout", "aria-live": "polite" }), plot = el("div");
  panel.append(
    Controls.slider("The first boxes of each source", { min: 1, max: trace.count, step: 1, value: shown, change: (value) => { shown = value; page.render(); } }),
    Controls.choice("Source", [["", "all"], ...used], only, (value) => { only = value; page.render(); }),
    info, plot);
  const place = []; // of each proposal within its source
  const counts = {};
  sources.forEach((source) => place.push((counts[source] = (counts[source] || 0) + 1)));
  return () => {
    const rows = [...sources.keys()].filter((row) => place[row] <= shown && (only === "" || sources[row] === Number(only)));
    for (const row of rows) {
      page.picture.box(trace.boxes.subarray(4 * row, 4 * row + 4), `source${sources[row] % 4}`, {
        title: `${data.sources[sources[row]]}, number ${place[row]}`, opacity: rows.length > 200 ? 0.35 : 0.8 });
    }
    const dropped = Object.entries(data.dropped).filter(([, boxes]) => boxes.shape[0]).map(([name, boxes]) => `${boxes.shape[0]} of ${name}`);
    info.textContent = `${Controls.amount(rows.length)} of ${Controls.amount(trace.count)} boxes are drawn.`
      + (dropped.length ? ` Near-copies of another source's boxes were left out: ${dropped.join(", ")}.` : "");
    page.objects.forEach((object) => page.picture.box(object.box, "truth", { label: object.name || "your box" }));
    plot.replaceChildren(page.objects.length ? recallPlot(page, sources, place) : el("p", { class: "quiet" },
      "Draw a box around an object on the picture to see after how many proposals one covers it."));
    page.picture.drawn = (box) => page.addObject(box);
  };
}

/** Recall at IoU 0.5 of the objects by the first n boxes of each source. */
function recallPlot(page, sources, place) {
  const { trace, objects } = page;
  const largest = Math.max(...place);
  const first = objects.map(({ box }) => {
    const object = Float64Array.from(box);
    return place.reduce((best, own, row) => (own < best && Engine.iou(object, 0, trace.boxes, row) >= 0.5 ? own : best), Infinity);
  });
  const points = [...new Set([1, ...first.filter(Number.isFinite), largest])].sort((a, b) => a - b)
    .flatMap((n) => [[n, first.filter((own) => own < n).length / objects.length], [n, first.filter((own) => own <= n).length / objects.length]]);
  const words = objects.map((object, at) => `${object.name || "your box"}: ${Number.isFinite(first[at]) ? `covered by box ${first[at]}` : "covered by none"}`);
  return el("div", {}, Controls.curve([{ name: "recall at IoU 0.5", points }], { x: "boxes of each source", y: "Share of the objects that are covered", log: true, max: largest }),
    el("p", {}, `${words.join("; ")}.`));
}

function regionsStage(panel, page) {
  const { data, trace } = page;
  const gallery = el("div", { class: "gallery", role: "group", "aria-label": "Regions" }), info = el("p", { class: "readout", "aria-live": "polite" });
  panel.append(gallery, info);
  for (const tile of data.tiles) {
    gallery.append(el("button", { type: "button", class: "tile", "data-row": tile.row, click: () => page.set({}, { region: tile.row }) },
      el("img", { src: tile.image, alt: `Region ${tile.row + 1} as the network sees it`, loading: "lazy" })));
  }
  return () => {
    for (const tile of gallery.children) tile.setAttribute("aria-pressed", String(Number(tile.dataset.row) === page.region));
    if (page.region === null || page.region >= trace.count) {
      info.textContent = "Choose a region.";
      return;
    }
    const row = page.region, box = [...trace.boxes.subarray(4 * row, 4 * row + 4)];
    page.picture.box(box, "chosen", { label: `region ${row + 1}` });
    const lines = data.members.map((member, at) => {
      const cut = data.cuts[at], window = [...cut.windows.data.subarray(4 * row, 4 * row + 4)];
      if (at === 0) page.picture.box(window, "window", { title: "the window with its context" });
      const seen = `${member.name} sees the box with ${member.context} of its ${member.size} pixels of context on each side`;
      if (member.kind === "warped") return `${seen}, warped to ${member.size} × ${member.size}.`;
      const side = member.pyramid[cut.levels.data[row]], scale = side / Math.sqrt(data.width * data.height);
      const cells = ((window[2] - window[0]) * scale) / 16, high = ((window[3] - window[1]) * scale) / 16;
      return `${seen}, cut out of the map of the image at the area of ${side} × ${side} pixels: ${Controls.figure(cells, 1)} × ${Controls.figure(high, 1)} cells of it become ${member.grid} × ${member.grid}.`;
    });
    info.replaceChildren(el("span", {}, `Box ${Controls.corners(box)}.`), ...lines.map((line) => el("span", { class: "line" }, line)));
  };
}

function absent(panel, page, text) {
  panel.append(el("p", { class: "readout" }, text));
  return () => {};
}
