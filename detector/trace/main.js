// The page: one stage at a time, its address, and what all stages share.
"use strict";

const BUILDERS = {
  superpixels: superpixelsStage,
  merging: mergingStage,
  proposals: proposalsStage,
  regions: regionsStage,
  votes: votesStage,
  cascade: cascadeStage,
  regression: regressionStage,
  suppression: suppressionStage,
  why: whyStage,
  result: resultStage,
};

class Page {
  constructor(data) {
    this.data = data;
    this.trace = State.read(data);
    unpackSearch(data.search);
    data.cuts.forEach((cut) => {
      cut.windows = Engine.unpack(cut.windows);
      cut.levels = cut.levels && Engine.unpack(cut.levels);
    });
    for (const name of Object.keys(data.dropped)) data.dropped[name] = Engine.unpack(data.dropped[name]);
    this.chosen = State.settings(this.trace);
    this.picture = new Picture(document.getElementById("picture"), data);
    this.objects = data.truth
      ? data.truth.boxes.map((box, at) => ({
          box,
          label: data.truth.labels[at],
          name: data.truth.names[at],
          ignored: data.truth.ignored[at],
        }))
      : [];
    this.asked = null;
    this.stages = Object.keys(BUILDERS);
    this.refreshers = {};
    this.timer = null;
    this.compute();
    this.before = this.result.detections;
    this.region = this.result.detections.length
      ? this.result.detections[0].row
      : data.tiles.length
        ? data.tiles[0].row
        : null;
    window.addEventListener("hashchange", () => this.show(location.hash.slice(1)));
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("resize", () => this.center());
    window.addEventListener("beforeprint", () =>
      document.querySelectorAll(".stage:not([hidden]) details").forEach((one) => {
        one.open = true;
      }),
    );
    document
      .querySelectorAll("[data-go]")
      .forEach((button) => button.addEventListener("click", () => this.go(Number(button.dataset.go))));
    this.show(location.hash.slice(1));
  }

  compute() {
    this.result = State.compute(this.trace, this.chosen);
  }

  /** Change settings, and what is looked at, and draw again. */
  set(settings, looked = {}) {
    Object.assign(this, looked);
    if (Object.keys(settings).length) {
      Object.assign(this.chosen, settings);
      this.compute();
    }
    this.render();
  }

  reset() {
    this.set(State.settings(this.trace));
  }

  lowest() {
    return this.chosen.minScores ? Math.min(...this.chosen.minScores) : this.chosen.minScore;
  }

  /** Go some stages on or back. */
  go(step) {
    const at = this.stages.indexOf(this.stage) + step;
    if (at >= 0 && at < this.stages.length) location.hash = this.stages[at];
  }

  key(event) {
    if (
      event.target.closest("input, select, textarea, [contenteditable]") ||
      event.altKey ||
      event.ctrlKey ||
      event.metaKey
    )
      return;
    if (event.key === "ArrowRight") this.go(1);
    else if (event.key === "ArrowLeft") this.go(-1);
    else return;
    event.preventDefault();
  }

  show(name) {
    this.stop();
    const isMove = Boolean(this.stage);
    this.stage = this.stages.includes(name) ? name : this.stages[0];
    document.querySelectorAll(".stage").forEach((section) => {
      section.hidden = section.id !== `stage-${this.stage}`;
    });
    document.querySelectorAll("#stages a").forEach((link) => {
      const isHere = link.hash === `#${this.stage}`;
      link.toggleAttribute("aria-current", isHere);
      if (isHere) link.setAttribute("aria-current", "step");
    });
    this.center();
    if (!this.refreshers[this.stage]) {
      const controls = document.querySelector(`#stage-${this.stage} .controls`);
      this.refreshers[this.stage] = BUILDERS[this.stage](controls, this);
    }
    document.querySelectorAll("[data-go]").forEach((button) => {
      const at = this.stages.indexOf(this.stage) + Number(button.dataset.go);
      button.disabled = at < 0 || at >= this.stages.length;
    });
    this.render();
    // The heading is read aloud, and the keyboard goes on from there.
    if (isMove) document.getElementById(`h-${this.stage}`).focus({ preventScroll: true });
  }

  /** Bring the stage of now into sight in the bar. */
  center() {
    const item = document.querySelector("#stages a[aria-current]").parentElement,
      bar = item.parentElement;
    bar.scrollLeft = item.offsetLeft - bar.offsetLeft - (bar.clientWidth - item.offsetWidth) / 2;
  }

  render() {
    const focused = document.activeElement,
      name = nameOfControl(focused);
    this.picture.clear();
    this.refreshers[this.stage]();
    this.showChanges();
    if (focused.isConnected || !name) return;
    const same = [
      ...document.querySelectorAll(`#stage-${this.stage} ${focused.tagName}, #picture ${focused.tagName}`),
    ].find((one) => nameOfControl(one) === name);
    if (same) same.focus({ preventScroll: true }); // it was built again: who uses the keyboard stays where they were
  }

  /** Say below the picture what differs from the run, and what that changed. */
  showChanges() {
    const run = State.settings(this.trace),
      names = {
        rejection: "rejection threshold",
        cascade: "cascade threshold",
        members: "members",
        minScore: "lowest score",
        maxIou: "largest IoU",
        softSigma: "soft suppression",
      };
    const changed = Object.keys(names).filter(
      (name) => JSON.stringify(run[name]) !== JSON.stringify(this.chosen[name]),
    );
    const root = document.getElementById("changes");
    root.hidden = !changed.length;
    if (!changed.length) return;
    const isSame = (one) => (other) => one.label === other.label && Engine.overlap(one.box, other.box) >= 0.5;
    const without = (some, others) =>
      some
        .filter((one) => !others.some(isSame(one)))
        .map((one) => `${this.data.classes[one.label]} ${figure(one.score, 2)}`);
    const now = this.result.detections,
      gained = without(now, this.before),
      lost = without(this.before, now);
    const list = (title, some) =>
      some.length
        ? ` ${title}: ${some.slice(0, 4).join(", ")}${some.length > 4 ? ` and ${some.length - 4} more` : ""}.`
        : "";
    root.replaceChildren(
      el(
        "span",
        {},
        `You changed: ${changed.map((name) => names[name]).join(", ")}. ` +
          `${counted(now.length, "detection")}, ${this.before.length} in the run.` +
          list("New", gained) +
          list("Lost", lost),
      ),
      " ",
      Controls.button("Back to the run", () => this.reset()),
    );
  }

  // ---- playing

  /** A button that takes a step several times a second, until there is none left or it is pressed again. */
  player(step) {
    const button = Controls.button("Play", () => {
      if (this.timer) {
        this.stop();
        return;
      }
      button.textContent = "Pause";
      this.playing = button;
      const pace = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1200 : 250;
      this.timer = setInterval(() => step() || this.stop(), pace);
    });
    return button;
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    if (this.playing) this.playing.textContent = "Play";
  }

  // ---- detections and objects

  /** All detections whatever their score, best first. */
  ranked() {
    return [...this.allDetections()].sort((a, b) => b.score - a.score);
  }

  allDetections() {
    const open = { ...this.chosen, minScores: null, minScore: Math.min(0.001, this.chosen.minScore) };
    if (this.openFor !== this.result) {
      this.open = State.compute(this.trace, open).detections;
      this.openFor = this.result;
    }
    return this.open;
  }

  isShown(one) {
    return (
      one.score >=
      (this.chosen.minScores
        ? this.chosen.minScores[one.label]
        : Math.max(this.chosen.minScore, this.data.minScores ? 0 : 0.5))
    );
  }

  drawDetections(opacity, isNamed = false) {
    for (const one of this.ranked().filter((own) => this.isShown(own))) {
      const name = this.data.classes[one.label];
      this.picture.box(one.box, "kept", {
        opacity,
        title: name,
        label: isNamed ? `${name} ${figure(one.score, 2)}` : "",
      });
    }
  }

  /** Draw regions so that a click chooses one. */
  regionButtons(rows) {
    const large = (row) => -Engine.area(this.trace.boxes, row);
    for (const row of rows.filter((one) => one !== this.region).sort((a, b) => large(a) - large(b))) {
      this.picture.box(this.trace.boxes.subarray(4 * row, 4 * row + 4), "other", {
        opacity: 0.7,
        title: describe(this, row),
        press: () => this.set({}, { region: row }),
      });
    }
  }

  memberName(at) {
    return `Member ${at + 1} (${this.data.members[at].name})`;
  }

  nameOf(object) {
    if (object.drawn) return "your box";
    const same = this.objects.filter((one) => one.name === object.name);
    const number = same.length > 1 ? ` ${same.indexOf(object) + 1}` : "";
    const remark = object.label < 0 ? ", a class unknown to the detector" : object.ignored ? ", not counted" : "";
    return `${object.name || "object"}${number}${remark}`;
  }

  /** 1 for each detection that finds an object, 0 for a wrong one, -1 for one that does not count. */
  judge(detections) {
    const objects = this.objects.filter((object) => !object.drawn);
    const matches = Engine.match(detections, objects);
    return new Map(detections.map((one, at) => [one, matches[at].status]));
  }

  // ---- what became of objects

  /** Objects that count, each with its fate. */
  fates() {
    if (this.fatesFor !== this.result) {
      const objects = this.objects.filter((object) => object.label >= 0 && !object.ignored && !object.drawn);
      const found = State.fates(this.trace, this.result, this.chosen, objects);
      this.allFates = new Map(objects.map((object, at) => [object, found[at]]));
      this.fatesFor = this.result;
    }
    return this.allFates;
  }

  /** The fate of an object as one of a class: among the others where it counts, else by itself. */
  fateOf(object, label) {
    const own = this.fates().get(object);
    return own && object.label === label
      ? own
      : State.fates(this.trace, this.result, this.chosen, [{ box: object.box, label }])[0];
  }

  /** Add a box that the reader drew. */
  addObject(box) {
    const object = { box, label: -1, name: "", ignored: true, drawn: true };
    object.label = this.guess(object);
    this.objects.push(object);
    this.asked = { object };
    if (this.stage === "why" || this.stage === "proposals") this.render();
    else this.ask({ object });
  }

  /** The class that is most probable around a box. */
  guess(object) {
    let best = [0, 0];
    for (const [row, { probabilities }] of this.result.scores) {
      const overlap = Engine.iou(object.box, 0, this.trace.boxes, row);
      probabilities.forEach((value, at) => {
        if (at && overlap * value > best[0]) best = [overlap * value, at - 1];
      });
    }
    return best[1];
  }

  ask(asked) {
    this.asked = asked;
    if (this.stage === "why") this.render();
    else location.hash = "why";
  }
}

/** What a screen reader calls a control. */
function nameOfControl(one) {
  return (
    one.getAttribute("aria-label") ||
    (one.labels && one.labels.length ? one.labels[0].textContent : one.tagName === "BUTTON" ? one.textContent : "")
  );
}

function unpackSearch(search) {
  if (!search) return;
  for (const some of Object.values(search.scales))
    some.forEach((one) => {
      one.boxes = Engine.unpack(one.boxes);
    });
  search.hierarchies.forEach((one) =>
    ["parts", "values", "ranks"].forEach((name) => {
      one[name] = Engine.unpack(one[name]);
    }),
  );
}

window.page = new Page(JSON.parse(document.getElementById("trace").textContent));
