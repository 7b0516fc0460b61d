// The trace as the page uses it: arrays unpacked, scores by region, and what other settings make of them.
// Regions 0..N-1 are proposals, N.. those of a second pass. A region's scores are the mean of the looks at it: only the
// first ("shallow") where the cascade did not pass it on, of all members ("deep") where it did.
"use strict";

const State = (() => {
  /** Read the page's data once. */
  function read(data) {
    const proposals = Engine.unpack(data.proposals.boxes);
    const second = Engine.unpack(data.second);
    const count = proposals.shape[0], regions = count + second.shape[0];
    const boxes = new Float32Array(4 * regions);
    boxes.set(proposals.data);
    boxes.set(second.data, 4 * count);
    const classes = data.classes.length;
    const looks = data.looks.map((look) => ({
      ...look,
      rows: Engine.unpack(look.rows).data,
      probabilities: Engine.unpack(look.probabilities).data,
      offsets: look.offsets ? Engine.unpack(look.offsets).data : null,
    }));
    const key = (look) => `${look.member} ${look.mirrored}`;
    const firsts = new Set(looks.filter((look) => !look.other && look.phase === 0).map(key));
    const shallow = Array.from({ length: regions }, () => []), deep = Array.from({ length: regions }, () => []);
    for (const look of looks) {
      look.rows.forEach((row, at) => {
        // A region that was passed over is seen once more for the page; what the run itself saw of it comes first.
        if (deep[row].some((one) => key(one.look) === key(look))) return;
        deep[row].push({ look, at });
        if (firsts.has(key(look))) shallow[row].push({ look, at });
      });
    }
    const sides = Math.max(...deep.map((list) => list.length), 0);
    const isDeep = deep.map((list) => list.length === sides && sides > 0);
    const rejection = data.rejection
      && { objects: Engine.unpack(data.rejection.objects).data, threshold: data.rejection.threshold };
    const cascade = data.cascade && data.settings.cascade.threshold > 0
      ? { scored: Engine.unpack(data.cascade.scored).data, copies: Engine.unpack(data.cascade.copies).data } : null;
    const trace = { data, count, regions, boxes, classes, looks, shallow, deep, isDeep, rejection, cascade };
    const objects = (list) => (list.length ? 1 - mean(trace, list).probabilities[0] : null);
    trace.first = shallow.slice(0, count).map(objects);
    trace.lowest = limits(trace);
    return trace;
  }

  /** Mean probabilities [K + 1] and offsets [4 K] of looks. */
  function mean(trace, list) {
    const width = trace.classes + 1, moves = 4 * trace.classes;
    const rows = (name, length) => list.map(({ look, at }) => look[name].subarray(at * length, (at + 1) * length));
    const offsets = list[0].look.offsets ? Engine.mean(rows("offsets", moves)) : null;
    return { probabilities: Engine.mean(rows("probabilities", width)), offsets };
  }

  /** The lowest thresholds for which every region that would pass has scores. */
  function limits(trace) {
    let rejection = 0, cascade = 0;
    for (let row = 0; row < trace.count; row++) {
      if (trace.rejection && !trace.shallow[row].length) rejection = Math.max(rejection, trace.rejection.objects[row]);
      if (trace.cascade && trace.shallow[row].length && !trace.isDeep[row]) cascade = Math.max(cascade, trace.first[row]);
    }
    return { rejection, cascade };
  }

  /** The settings of the run. */
  function settings(trace) {
    const { suppression, cascade } = trace.data.settings;
    return {
      rejection: trace.rejection ? trace.rejection.threshold : 0,
      cascade: cascade.threshold,
      near: cascade.near,
      best: cascade.best,
      members: trace.data.members.map(() => true),
      minScores: trace.data.minScores,
      minScore: suppression.min_score === null ? 0.001 : suppression.min_score,
      maxIou: suppression.max_iou,
      softSigma: suppression.soft_sigma,
      limit: suppression.limit,
      vote: suppression.vote,
    };
  }

  /** Everything that follows from settings: which regions pass, their scores, the detections. */
  function compute(trace, chosen) {
    const rows = [], rejected = [];
    for (let row = 0; row < trace.count; row++) {
      const isIn = !trace.rejection || trace.rejection.objects[row] >= chosen.rejection;
      (isIn && trace.shallow[row].length ? rows : rejected).push(row);
    }
    let passing = { scored: trace.cascade ? [] : rows, copies: [] };
    if (trace.cascade) {
      const own = Float32Array.from(rows.flatMap((row) => [...trace.boxes.subarray(4 * row, 4 * row + 4)]));
      const found = Engine.passes(Float64Array.from(rows, (row) => trace.first[row]), own,
        { threshold: chosen.cascade, best: chosen.best, near: chosen.near });
      passing = { scored: found.scored.map((at) => rows[at]), copies: found.copies.map((at) => rows[at]) };
    }
    const isScored = new Set(passing.scored), isCopy = new Set(passing.copies);
    const scores = new Map();
    for (const row of rows) {
      if (isCopy.has(row)) continue; // certain to be background
      const list = !trace.cascade || (isScored.has(row) && trace.isDeep[row]) ? trace.deep[row] : trace.shallow[row];
      const enabled = list.filter(({ look }) => chosen.members[look.member]);
      if (enabled.length) scores.set(row, mean(trace, enabled));
    }
    for (let row = trace.count; row < trace.regions; row++) {
      const enabled = trace.deep[row].filter(({ look }) => chosen.members[look.member]);
      if (enabled.length) scores.set(row, mean(trace, enabled));
    }
    const all = [...scores.keys()];
    const box = (row, label) => {
      const { offsets } = scores.get(row);
      return offsets ? Engine.moved(trace.boxes, row, offsets, 4 * label, trace.data.width, trace.data.height)
        : [...trace.boxes.subarray(4 * row, 4 * row + 4)];
    };
    const probability = (row, label) => scores.get(row).probabilities[label + 1];
    const { detections, beyond, playback } = Engine.detect(all, trace.classes, probability, box, chosen);
    return {
      ...{ rows, rejected, passing, isScored, isCopy, scores, all, box, probability, detections, beyond, playback },
      seconds: seconds(trace, rows.length, passing),
    };
  }

  /** Predicted seconds: what depends on the number of regions grows with it. */
  function seconds(trace, cut, passing) {
    const first = trace.looks.find((look) => !look.other);
    const warps = trace.cascade ? passing.scored.length : cut;
    const shares = { regions: [cut, first ? first.rows.length : 0] };
    shares.warp = shares.network = [warps, trace.cascade ? trace.cascade.scored.length : shares.regions[1]];
    return Object.entries(trace.data.seconds).reduce((total, [stage, time]) => {
      const [number, before] = shares[stage] || [1, 1];
      return total + (before ? (time * number) / before : 0);
    }, 0);
  }

  /**
   * Where an object was lost, in the words of the evaluation's stage fates (experiments/stages.py).
   * box: [4]; label: 0..K-1. Returns {stage, row, iou, ...facts}.
   */
  function fate(trace, result, chosen, box, label, minIou = 0.5) {
    const object = Float64Array.from(box);
    const own = (row) => Float64Array.from(result.scores.has(row) ? result.box(row, label) : trace.boxes.subarray(4 * row, 4 * row + 4));
    const overlaps = Array.from({ length: trace.regions }, (_, row) => Engine.iou(object, 0, own(row), 0));
    const covering = overlaps.map((overlap, row) => ({ row, iou: overlap })).filter((one) => one.iou >= minIou);
    const best = overlaps.reduce((at, overlap, row) => (overlap > overlaps[at] ? row : at), 0);
    const facts = { best, bestIou: overlaps[best] || 0, covering };
    const hit = result.detections.find((one) => one.label === label && Engine.iou(object, 0, Float64Array.from(one.box), 0) >= minIou);
    if (hit) return { ...facts, stage: "found", hit };
    if (!covering.length) return { ...facts, stage: "never proposed" };
    const classified = covering.filter(({ row }) => {
      if (!result.scores.has(row)) return false;
      const { probabilities } = result.scores.get(row);
      return probabilities[label + 1] >= Math.max(...probabilities);
    });
    if (!classified.length) return { ...facts, stage: "misclassified" };
    const wanted = chosen.minScores ? chosen.minScores[label] : chosen.minScore;
    const above = classified.filter(({ row }) => result.probability(row, label) >= wanted);
    if (!above.length) return { ...facts, stage: "below the score", classified, wanted };
    return { ...facts, stage: "suppressed by NMS", above, wanted };
  }

  return { read, settings, compute, fate, mean };
})();

if (typeof module !== "undefined") module.exports = State;
