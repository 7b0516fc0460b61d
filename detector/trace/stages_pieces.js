// The stages that make pieces and boxes of them: superpixels, merging. Each function fills its part of the panel once
// and returns what is to be done whenever the page changes.
"use strict";

const LETTERS = { C: "colour", T: "texture", S: "size", F: "fill" };
const SPACES = { hsv: "HSV", lab: "Lab", rgi: "rgI", h: "hue", i: "intensity" };
const FIRST = "#0072b2",
  SECOND = "#e69f00",
  CLICKED = "#f0e442";
const rgba = (colour, alpha) => [...[1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)), alpha];

/** Scale boxes of the searched image to the image's own pixels. */
function toImage(page, box) {
  const { search, width, height } = page.data;
  const factors = [width / search.width, height / search.height];
  return [...box].map((value, at) => value * factors[at % 2]);
}

/** The number of the superpixel at a place of the image. */
function numberAt(page, map, x, y) {
  const column = Math.floor((x / page.data.width) * map.width),
    row = Math.floor((y / page.data.height) * map.height);
  return map.numbers[
    Math.min(Math.max(row, 0), map.height - 1) * map.width + Math.min(Math.max(column, 0), map.width - 1)
  ];
}

function superpixelsStage(panel, page) {
  const { search } = page.data;
  if (!search) return absent(panel, "This detector uses no selective search of its own, so there are no superpixels.");
  let scale = search.scale,
    at = 0,
    shown = -1;
  const info = el("p", { class: "readout", "aria-live": "polite" });
  const names = { 1: "1× (R-CNN)", 2: "2× (this paper)" };
  const scales = Object.keys(search.scales).map((key) => [key, names[key] || `${key}×`]);
  const parts = search.scales[scale].map((one, index) => [index, `${SPACES[one.space] || one.space}, k = ${one.k}`]);
  const compared = el("div", { class: "compare" }),
    slot = el("div");
  let slider = null;
  const change = (next) => {
    next();
    slider = null;
    shown = -1;
    page.render();
  };
  const look = (number) => {
    shown = number;
    page.render();
  };
  panel.append(
    Controls.choice("Colour space and k", parts, at, (value) =>
      change(() => {
        at = Number(value);
      }),
    ),
    Controls.choice("Size of the superpixels", scales, scale, (value) =>
      change(() => {
        scale = value;
      }),
    ),
    slot,
    info,
    el("h3", {}, "The paper's change, side by side"),
    compared,
  );
  return () => {
    const segmentation = search.scales[scale][at],
      count = segmentation.boxes.shape[0];
    if (!slider) {
      slider = Controls.slider("Show one superpixel, or point at it", {
        min: -1,
        max: count - 1,
        step: 1,
        value: shown,
        show: (v) => (v < 0 ? "none" : v + 1),
        change: look,
      });
      slot.replaceChildren(slider);
      compared.replaceChildren(...comparison(page, at, names));
    }
    slider.set(shown);
    if (shown >= 0)
      page.picture.box(toImage(page, segmentation.boxes.data.subarray(4 * shown, 4 * shown + 4)), "chosen");
    page.picture.key([["chosen", "box around the superpixel: already a proposal, if it is wide enough"]]);
    readMap(segmentation).then((map) => {
      if (page.stage !== "superpixels") return;
      page.picture.paint({ ...map, borders: true }, (number) =>
        number === shown ? [255, 220, 0, 190] : colourOf(number),
      );
      const size = map.numbers.reduce((sum, one) => sum + (one === shown), 0);
      info.textContent =
        shown < 0
          ? `${amount(count)} superpixels; none is smaller than ${segmentation.minSize} pixels. ` +
            "The colours only tell neighbours apart."
          : `Superpixel ${shown + 1} of ${amount(count)}: ${amount(size)} of the ${amount(map.numbers.length)} pixels.`;
      page.picture.hovered = (x, y) => {
        const number = numberAt(page, map, x, y);
        if (number !== shown) look(number);
      };
    });
  };
}

/** The same colour space and k at the size of R-CNN and at twice that size. */
function comparison(page, at, names) {
  const { scales } = page.data.search;
  return ["1", "2"]
    .filter((key) => scales[key])
    .map((key) => {
      const one = scales[key][at],
        count = one.boxes.shape[0];
      const canvas = el("canvas", { role: "img", "aria-label": `${count} superpixels at ${key}×` });
      readMap(one).then((map) => paintSmall(canvas, map, page.picture.image));
      return el("figure", {}, canvas, el("figcaption", {}, `${names[key]}: ${amount(count)} superpixels`));
    });
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
    if (right !== map.numbers[at] || below !== map.numbers[at])
      context.fillRect(at % map.width, Math.floor(at / map.width), 1, 1);
  }
}

/** A hierarchy with what follows from it: boxes of all regions, superpixels first, and the region that each becomes. */
function grown(hierarchy, leaves) {
  if (hierarchy.boxes) return hierarchy;
  const count = leaves.shape[0],
    steps = hierarchy.parts.shape[0],
    parts = hierarchy.parts.data;
  const boxes = new Int32Array(4 * (count + steps)),
    parent = new Int32Array(count + steps).fill(-1);
  boxes.set(leaves.data);
  for (let at = 0; at < steps; at++) {
    const [a, b] = [parts[2 * at], parts[2 * at + 1]],
      to = count + at;
    parent[a] = parent[b] = to;
    for (let corner = 0; corner < 4; corner++) {
      boxes[4 * to + corner] = (corner < 2 ? Math.min : Math.max)(boxes[4 * a + corner], boxes[4 * b + corner]);
    }
  }
  return Object.assign(hierarchy, { boxes, parent, count, steps });
}

/** The region that a superpixel belongs to after so many merges. */
function regionOf(hierarchy, number, merges) {
  while (hierarchy.parent[number] >= 0 && hierarchy.parent[number] < hierarchy.count + merges)
    number = hierarchy.parent[number];
  return number;
}

function mergingStage(panel, page) {
  const { search } = page.data;
  if (!search) return absent(panel, "This detector uses no selective search of its own, so nothing was merged.");
  const own = search.scales[search.scale];
  const hierarchies = search.hierarchies.map((one) => grown(one, own[one.segmentation].boxes));
  let chosen = 0,
    step = Math.max(hierarchies[0].steps - 25, 0),
    clicked = null;
  const options = hierarchies.map((one, index) => {
    const { space, k } = own[one.segmentation];
    return [
      index,
      `${SPACES[space] || space}, k = ${k}, by ${[...one.similarities].map((letter) => LETTERS[letter]).join(", ")}`,
    ];
  });
  const slot = el("div"),
    values = el("div"),
    follow = el("div"),
    info = el("p", { class: "readout", "aria-live": "polite" });
  const steps = () => hierarchies[chosen].steps;
  const go = (to) => {
    step = Math.min(Math.max(to, 0), steps());
    slider.set(step);
    page.render();
  };
  const makeSlider = () =>
    Controls.slider("Merges done", {
      min: 0,
      max: steps(),
      step: 1,
      value: step,
      show: (v) => `${v} of ${steps()}`,
      change: (value) => {
        step = value;
        page.render();
      },
    });
  let slider = makeSlider();
  slot.append(slider);
  panel.append(
    Controls.choice("Hierarchy", options, chosen, (value) => {
      chosen = Number(value);
      step = Math.min(step, steps());
      clicked = null;
      slider = makeSlider();
      slot.replaceChildren(slider);
      page.render();
    }),
    slot,
    el(
      "p",
      { class: "buttons" },
      Controls.button("One back", () => go(step - 1)),
      Controls.button("One further", () => go(step + 1)),
      page.player(() => (step < steps() ? (go(step + 1), true) : false)),
      Controls.button("To the last", () => go(steps())),
    ),
    info,
    values,
    follow,
  );
  return () => {
    const hierarchy = hierarchies[chosen],
      made = hierarchy.count + step - 1;
    const [a, b] = step ? hierarchy.parts.data.subarray(2 * step - 2, 2 * step) : [-1, -1];
    const asked = clicked === null ? -1 : regionOf(hierarchy, clicked, step);
    if (step)
      page.picture.box(toImage(page, hierarchy.boxes.subarray(4 * made, 4 * made + 4)), "chosen", {
        label: `merge ${step}`,
      });
    page.picture.key([
      ...(step
        ? [
            [FIRST, "one region"],
            [SECOND, "the other"],
          ]
        : []),
      ["chosen", "box around both: a proposal"],
      ...(clicked === null ? [] : [[CLICKED, "the region that you clicked"]]),
    ]);
    readMap(own[hierarchy.segmentation]).then((map) => {
      if (page.stage !== "merging") return;
      page.picture.paint({ ...map, borders: false }, (number) => paintMerge(hierarchy, number, step, a, b, asked));
      page.picture.pressed = (x, y) => {
        clicked = numberAt(page, map, x, y);
        page.render();
      };
    });
    info.textContent = step
      ? aboutMerge(search, hierarchy, step)
      : `${amount(hierarchy.count)} superpixels and no merge yet. Each superpixel's own box is a proposal too.`;
    values.replaceChildren(step ? similarities(hierarchy, step) : "");
    follow.replaceChildren(...whereNext(hierarchy, step, made, asked, go));
  };
}

/** Colour of a superpixel: that of the merge's two regions, of the clicked one, or of its region by now. */
function paintMerge(hierarchy, number, step, a, b, asked) {
  const before = regionOf(hierarchy, number, step - 1);
  if (before === a) return rgba(FIRST, 215);
  if (before === b) return rgba(SECOND, 215);
  const now = regionOf(hierarchy, number, step);
  return now === asked ? rgba(CLICKED, 190) : colourOf(now, 110);
}

function aboutMerge(search, hierarchy, step) {
  const rank = hierarchy.ranks.data[hierarchy.count + step - 1];
  const place =
    rank < 0
      ? "Its box is too narrow, or came too late in the list, and is no proposal."
      : `Its box is number ${amount(rank + 1)} of selective search's ${amount(search.boxes)} proposals.`;
  const words = "the blue and the orange region were the most similar neighbours, and became one.";
  return `Merge ${step} of ${hierarchy.steps}: ${words} ${place}`;
}

function similarities(hierarchy, step) {
  const four = [...hierarchy.values.data.subarray(4 * step - 4, 4 * step)].map((value) => value / 255);
  const isUsed = [..."CTSF"].map((letter) => hierarchy.similarities.includes(letter));
  const used = four.filter((_, at) => isUsed[at]),
    mean = used.reduce((sum, value) => sum + value, 0) / used.length;
  return Controls.bars([
    ...[..."CTSF"].map((letter, at) => [LETTERS[letter], four[at], figure(four[at], 2), isUsed[at] ? "" : "unused"]),
    ["mean of those in use", mean, figure(mean, 2), "total"],
  ]);
}

/** Buttons to the merge in which a region is used up next: the new one, and the one that the reader clicked. */
function whereNext(hierarchy, step, made, asked, go) {
  const next = (region) => (hierarchy.parent[region] < 0 ? 0 : hierarchy.parent[region] - hierarchy.count + 1);
  const lines = [];
  if (step && next(made))
    lines.push(
      el(
        "p",
        {},
        Controls.button(`Follow the new region to merge ${next(made)}`, () => go(next(made))),
      ),
    );
  if (asked < 0) lines.push(el("p", { class: "quiet" }, "Click a region on the picture to see when it merges."));
  else if (!next(asked)) lines.push(el("p", {}, "The region that you clicked is the last one: the whole image."));
  else
    lines.push(
      el(
        "p",
        {},
        "The region that you clicked merges next in ",
        Controls.button(`merge ${next(asked)}`, () => go(next(asked))),
        ".",
      ),
    );
  return lines;
}

function absent(panel, text) {
  panel.append(el("p", { class: "readout" }, text));
  return () => {};
}
