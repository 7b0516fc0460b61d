// The picture that stays in sight: the image, a canvas of superpixels over it, and boxes as SVG on top.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: el("p", {class: "quiet"}, "text", other). A function as a value listens to that event. */
function el(name, attributes = {}, ...children) {
  const node = ["svg", "rect", "line", "path", "g", "text", "title", "polyline", "circle", "image"].includes(name)
    ? document.createElementNS(SVG, name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== undefined && value !== null && value !== false)
      node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

class Picture {
  /** root: the element to fill; data: the page's data. */
  constructor(root, data) {
    this.data = data;
    this.image = el("img", { src: data.image, alt: `The image ${data.name}`, width: data.width, height: data.height });
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.svg = el("svg", {
      viewBox: `0 0 ${data.width} ${data.height}`,
      role: "group",
      "aria-label": "Boxes on the image",
    });
    this.hovered = null;
    this.drawn = null;
    root.append(this.image, this.canvas, this.svg);
    this.list = document.getElementById("key");
    this.svg.addEventListener("pointermove", (event) => this.hovered && this.hovered(...this.at(event)));
    this.svg.addEventListener(
      "click",
      (event) => this.pressed && !event.target.closest(".press") && this.pressed(...this.at(event)),
    );
    this.svg.addEventListener("pointerdown", (event) => this.startBox(event));
  }

  /** What is done with a box that the reader draws; null where none is wanted. */
  set drawn(done) {
    this.done = done;
    this.svg.classList.toggle("draws", Boolean(done));
  }

  get drawn() {
    return this.done;
  }

  /** Where an event is, in pixels of the image. */
  at(event) {
    const frame = this.svg.getBoundingClientRect();
    return [
      ((event.clientX - frame.left) / frame.width) * this.data.width,
      ((event.clientY - frame.top) / frame.height) * this.data.height,
    ];
  }

  /** Remove all that was drawn, and forget who listens. */
  clear() {
    this.svg.replaceChildren();
    this.hovered = this.pressed = this.drawn = null;
    this.canvas.width = this.canvas.height = 0;
    this.kinds = new Set();
    this.labels = [];
    this.list.replaceChildren();
  }

  /** Say under the picture what lines and colours mean: [[kind or #colour, text]], without kinds that are not drawn. */
  key(entries) {
    for (const [kind, text] of entries.filter(([own]) => own.startsWith("#") || this.kinds.has(own))) {
      const whole = { x: 2, y: 2, width: 24, height: 10 };
      const sample = kind.startsWith("#")
        ? [el("rect", { ...whole, fill: kind })]
        : [
            el(
              "g",
              { class: `box ${kind}` },
              el("rect", { ...whole, class: "under" }),
              el("rect", { ...whole, class: "line" }),
            ),
          ];
      this.list.append(el("li", {}, el("svg", { viewBox: "0 0 28 14", "aria-hidden": "true" }, ...sample), text));
    }
  }

  /** Draw a box [x1, y1, x2, y2]. kind: a class of style.css; label: text at its corner; press: what a click does. */
  box([x1, y1, x2, y2], kind, { title = "", label = "", press = null, opacity = 1 } = {}) {
    this.kinds.add(kind);
    const place = { x: x1, y: y1, width: Math.max(x2 - x1, 0.5), height: Math.max(y2 - y1, 0.5) };
    const group = el(
      "g",
      { class: `box ${kind}`, opacity },
      title ? el("title", {}, title) : null,
      el("rect", { ...place, class: "under" }),
      el("rect", { ...place, class: "line" }),
    );
    if (press) {
      group.setAttribute("tabindex", "0");
      group.setAttribute("role", "button");
      group.setAttribute("aria-label", title || label);
      group.classList.add("press");
      group.addEventListener("click", press);
      group.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          press(event);
        }
      });
    }
    if (press) group.area = place.width * place.height;
    const smaller = press && [...this.svg.children].find((one) => one.area < group.area); // which it must not cover
    this.svg.insertBefore(group, smaller || null);
    if (label) this.label(label, [x1, y1, x2, y2], kind);
  }

  /** Write at a corner of a box where no other label is; where all are taken, nothing: its title says the same. */
  label(text, [x1, y1, x2, y2], kind) {
    const size = Math.max(this.data.width, this.data.height) / 34,
      height = size * 1.3;
    const width = (text.length + 1) * size * 0.62;
    const corners = [
      [x1, y1 - height],
      [x1, y1],
      [x2 - width, y1],
      [x1, y2 - height],
      [x2 - width, y2 - height],
    ];
    const inside = corners.map(([x, y]) => [
      Math.min(Math.max(x, 0), Math.max(this.data.width - width, 0)),
      Math.min(Math.max(y, 0), this.data.height - height),
    ]);
    const isFree = ([x, y]) =>
      this.labels.every(
        (one) => x >= one[0] + one[2] || x + width <= one[0] || y >= one[1] + height || y + height <= one[1],
      );
    const place = inside.find(isFree);
    if (!place) return;
    const [left, top] = place;
    this.labels.push([left, top, width]);
    this.svg.append(
      el(
        "g",
        { class: `tag ${kind}`, "aria-hidden": "true" },
        el("rect", { x: left, y: top, width, height }),
        el("text", { x: left + size * 0.3, y: top + size, "font-size": size }, text),
      ),
    );
  }

  arrow([x1, y1], [x2, y2], kind) {
    const length = Math.hypot(x2 - x1, y2 - y1);
    if (length < 1) return;
    const size = Math.max(this.data.width, this.data.height) / 60;
    const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
    const left = [x2 - size * (ux - uy / 2), y2 - size * (uy + ux / 2)];
    const right = [x2 - size * (ux + uy / 2), y2 - size * (uy - ux / 2)];
    const head = `M${x2} ${y2}L${left}L${right}Z`;
    this.svg.append(
      el(
        "g",
        { class: `box ${kind}` },
        el("line", { x1, y1, x2, y2, class: "under" }),
        el("line", { x1, y1, x2, y2, class: "line" }),
        el("path", { d: head, class: "head" }),
      ),
    );
  }

  /** Paint the superpixels: colour(number) -> [r, g, b, a] for each pixel's number. */
  paint(map, colour) {
    const { width, height, numbers } = map;
    this.canvas.width = width;
    this.canvas.height = height;
    const pixels = new ImageData(width, height),
      cache = new Map();
    for (let at = 0; at < numbers.length; at++) {
      let value = cache.get(numbers[at]);
      if (!value) cache.set(numbers[at], (value = colour(numbers[at])));
      const right = (at + 1) % width ? numbers[at + 1] : numbers[at],
        below = at + width < numbers.length ? numbers[at + width] : numbers[at];
      const border = map.borders && (right !== numbers[at] || below !== numbers[at]);
      pixels.data.set(border ? [0, 0, 0, 190] : value, 4 * at);
    }
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  /** Let the reader draw a box with the pointer; done(box) is called when the pointer is lifted. */
  startBox(event) {
    if (!this.drawn) return; // within a box that can be pressed too: a click presses, a drag draws
    event.preventDefault();
    const [x, y] = this.at(event),
      done = this.drawn;
    const rect = el("rect", { class: "line" });
    const group = el("g", { class: "box drawn", "pointer-events": "none" }, rect);
    this.svg.append(group);
    const corners = (to) => [Math.min(x, to[0]), Math.min(y, to[1]), Math.max(x, to[0]), Math.max(y, to[1])];
    const move = (next) => {
      const [x1, y1, x2, y2] = corners(this.at(next));
      Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 }).forEach(([key, value]) =>
        rect.setAttribute(key, value),
      );
    };
    const stop = (last) => {
      this.svg.removeEventListener("pointermove", move);
      ["pointerup", "pointercancel"].forEach((kind) => window.removeEventListener(kind, stop));
      group.remove();
      const box = corners(this.at(last)).map((value, at) =>
        Math.min(Math.max(value, 0), at % 2 ? this.data.height : this.data.width),
      );
      if (last.type === "pointerup" && box[2] - box[0] > 3 && box[3] - box[1] > 3) done(box);
    };
    this.svg.addEventListener("pointermove", move);
    ["pointerup", "pointercancel"].forEach((kind) => window.addEventListener(kind, stop));
  }
}

/** Read a picture of superpixels: the number of each pixel. */
function readMap(segmentation) {
  if (segmentation.pixels) return Promise.resolve(segmentation.pixels);
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => {
      const canvas = el("canvas", { width: image.width, height: image.height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      const { data } = context.getImageData(0, 0, image.width, image.height);
      const numbers = new Int32Array(image.width * image.height);
      for (let at = 0; at < numbers.length; at++)
        numbers[at] = data[4 * at] + 256 * data[4 * at + 1] + 65536 * data[4 * at + 2];
      segmentation.pixels = { width: image.width, height: image.height, numbers };
      resolve(segmentation.pixels);
    };
    image.src = segmentation.map;
  });
}

/** A colour that differs from those of the numbers around it. */
function colourOf(number, alpha = 150) {
  const hue = (number * 137.508) % 360,
    light = 45 + ((number * 29) % 30);
  const a = 0.75 * Math.min(light / 100, 1 - light / 100);
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (light / 100 - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4), alpha];
}
