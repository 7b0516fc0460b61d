// The page: one stage at a time, its address, and what all stages share.
"use strict";

const BUILDERS = {
  superpixels: superpixelsStage, merging: mergingStage, proposals: proposalsStage, regions: regionsStage, votes: votesStage,
  cascade: cascadeStage, regression: regressionStage, suppression: suppressionStage, why: whyStage, result: resultStage,
};

class Page {
  constructor(data) {
    this.data = data;
    this.trace = State.read(data);
    unpackSearch(data.search);
    data.cuts.forEach((cut) => { cut.windows = Engine.unpack(cut.windows); cut.levels = cut.levels && Engine.unpack(cut.levels); });
    for (const name of Object.keys(data.dropped)) data.dropped[name] = Engine.unpack(data.dropped[name]);
    this.chosen = State.settings(this.trace);
    this.picture = new Picture(document.getElementById("picture"), data);
    this.objects = data.truth ? data.truth.boxes.map((box, at) => ({
      box, label: data.truth.labels[at], name: data.truth.names[at] || "another class", ignored: data.truth.ignored[at] })) : [];
    this.asked = null;
    this.stages = Object.keys(BUILDERS);
    this.refreshers = {};
    this.timer = null;
    this.compute();
    this.region = this.result.detections.length ? this.result.detections[0].row : data.tiles.length ? data.tiles[0].row : null;
    window.addEventListener("hashchange", () => this.show(location.hash.slice(1)));
    document.addEventListener("keydown", (event) => this.key(event));
    document.querySelectorAll("[data-go]").forEach((button) => button.addEventListener("click", () => this.go(Number(button.dataset.go))));
    this.show(location.hash.slice(1));
  }

  compute() { this.result = State.compute(this.trace, this.chosen); }

  /** Change settings, and what is looked at, and draw again. */
  set(settings, looked = {}) {
    Object.assign(this, looked);
    if (Object.keys(settings).length) {
      Object.assign(this.chosen, settings);
      this.compute();
    }
    this.render();
  }

  reset() { this.set(State.settings(this.trace)); }

  lowest() { return this.chosen.minScores ? Math.min(...this.chosen.minScores) : this.chosen.minScore; }

  /** Go some stages on or back. */
  go(step) {
    const at = this.stages.indexOf(this.stage) + step;
    if (at >= 0 && at < this.stages.length) location.hash = this.stages[at];
  }

  key(event) {
    if (event.target.closest("input, select, textarea, [contenteditable]") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowRight") this.go(1);
    else if (event.key === "ArrowLeft") this.go(-1);
    else return;
    event.preventDefault();
  }

  show(name) {
    this.stop();
    this.stage = this.stages.includes(name) ? name : this.stages[0];
    document.querySelectorAll(".stage").forEach((section) => { section.hidden = section.id !== `stage-${this.stage}`; });
    document.querySelectorAll("#stages a").forEach((link) => {
      const isHere = link.hash === `#${this.stage}`;
      link.toggleAttribute("aria-current", isHere);
      if (isHere) link.setAttribute("aria-current", "step");
      if (isHere) link.scrollIntoView({ block: "nearest", inline: "center" });
    });
    if (!this.refreshers[this.stage]) {
      const controls = document.querySelector(`#stage-${this.stage} .controls`);
      this.refreshers[this.stage] = BUILDERS[this.stage](controls, this);
    }
    document.querySelectorAll("[data-go]").forEach((button) => {
      const at = this.stages.indexOf(this.stage) + Number(button.dataset.go);
      button.disabled = at < 0 || at >= this.stages.length;
    });
    this.render();
  }

  render() {
    this.picture.clear();
    this.refreshers[this.stage]();
  }

  // ---- playing

  /** A button that takes a step several times a second, until there is none left or it is pressed again. */
  player(step) {
    const button = Controls.button("Play", () => {
      if (this.timer) { this.stop(); return; }
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
  ranked() { return [...this.allDetections()].sort((a, b) => b.score - a.score); }

  allDetections() {
    const open = { ...this.chosen, minScores: null, minScore: Math.min(0.001, this.chosen.minScore) };
    if (this.openFor !== this.result) {
      this.open = State.compute(this.trace, open).detections;
      this.openFor = this.result;
    }
    return this.open;
  }

  isShown(one) { return one.score >= (this.chosen.minScores ? this.chosen.minScores[one.label] : Math.max(this.chosen.minScore, this.data.minScores ? 0 : 0.5)); }

  drawDetections(opacity) {
    this.ranked().filter((one) => this.isShown(one)).forEach((one) => this.picture.box(one.box, "kept", { opacity, title: this.data.classes[one.label] }));
  }

  /** Which detections find an object: each the best free object of its class, from IoU 0.5, best detection first. */
  judge(detections) {
    const free = new Set(this.objects.filter((object) => object.label >= 0)), found = new Map();
    for (const one of detections) {
      const own = Float64Array.from(one.box);
      const best = [...free].filter((object) => object.label === one.label).map((object) => [Engine.iou(Float64Array.from(object.box), 0, own, 0), object]).sort((a, b) => b[0] - a[0])[0];
      const isHit = Boolean(best && best[0] >= 0.5);
      if (isHit) free.delete(best[1]);
      found.set(one, isHit && !best[1].ignored);
    }
    return found;
  }

  /** Add a box that the reader drew. */
  addObject(box) {
    const object = { box, label: -1, name: "", ignored: true };
    object.label = this.guess(object);
    object.name = "";
    this.objects.push(object);
    this.asked = { object };
    if (this.stage === "why") this.render();
    else if (this.stage === "proposals") this.render();
    else this.ask({ object });
  }

  /** The class that is most probable around a box. */
  guess(object) {
    const own = Float64Array.from(object.box);
    let best = [0, 0];
    for (const [row, { probabilities }] of this.result.scores) {
      const overlap = Engine.iou(own, 0, this.trace.boxes, row);
      probabilities.forEach((value, at) => { if (at && overlap * value > best[0]) best = [overlap * value, at - 1]; });
    }
    return best[1];
  }

  ask(asked) {
    this.asked = asked;
    if (this.stage === "why") this.render();
    else location.hash = "why";
  }
}

function unpackSearch(search) {
  if (!search) return;
  for (const some of Object.values(search.scales)) some.forEach((one) => { one.boxes = Engine.unpack(one.boxes); });
  search.hierarchies.forEach((one) => ["parts", "values", "ranks"].forEach((name) => { one[name] = Engine.unpack(one[name]); }));
}

window.page = new Page(JSON.parse(document.getElementById("trace").textContent));
