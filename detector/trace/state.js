// The trace as the page uses it: arrays unpacked, scores by region, and what other settings make of them.
// Regions 0..N-1 are proposals, N.. those of a second pass. A region's scores are the mean of the looks at it: only the
// first ("shallow") where the cascade did not pass it on, of all members ("deep") where it did.
"use strict";

const State = (() => {
  /** Read the page's data once. */
  function read(data) {
    const proposals = Engine.unpack(data.proposals.boxes);
    const second = Engine.unpack(data.second);
    const count = proposals.shape[0],
      regions = count + second.shape[0];
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
    const shallow = Array.from({ length: regions }, () => []),
      deep = Array.from({ length: regions }, () => []);
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
    const rejection = data.rejection && {
      objects: Engine.unpack(data.rejection.objects).data,
      threshold: data.rejection.threshold,
    };
    const cascade =
      data.cascade && data.settings.cascade.threshold > 0
        ? { scored: Engine.unpack(data.cascade.scored).data, copies: Engine.unpack(data.cascade.copies).data }
        : null;
    const trace = { data, count, regions, boxes, classes, looks, shallow, deep, isDeep, rejection, cascade };
    const objects = (list) => (list.length ? 1 - mean(trace, list).probabilities[0] : null);
    trace.first = shallow.slice(0, count).map(objects);
    trace.lowest = limits(trace);
    return trace;
  }

  /** Mean probabilities [K + 1] and offsets [4 K] of looks. */
  function mean(trace, list) {
    const width = trace.classes + 1,
      moves = 4 * trace.classes;
    const rows = (name, length) => list.map(({ look, at }) => look[name].subarray(at * length, (at + 1) * length));
    const offsets = list[0].look.offsets ? Engine.mean(rows("offsets", moves)) : null;
    return { probabilities: Engine.mean(rows("probabilities", width)), offsets };
  }

  /** The lowest thresholds for which every region that would pass has scores. */
  function limits(trace) {
    let rejection = 0,
      cascade = 0;
    for (let row = 0; row < trace.count; row++) {
      if (trace.rejection && !trace.shallow[row].length) rejection = Math.max(rejection, trace.rejection.objects[row]);
      if (trace.cascade && trace.shallow[row].length && !trace.isDeep[row])
        cascade = Math.max(cascade, trace.first[row]);
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
      minScores: trace.data.minScores && trace.data.minScores.map((score) => (score === null ? Infinity : score)),
      minScore: suppression.min_score === null ? 0.001 : suppression.min_score,
      maxIou: suppression.max_iou,
      softSigma: suppression.soft_sigma,
      limit: suppression.limit,
      vote: suppression.vote,
    };
  }

  /** Everything that follows from settings: which regions pass, their scores, the detections. */
  function compute(trace, chosen) {
    const rows = [],
      rejected = [];
    for (let row = 0; row < trace.count; row++) {
      const isIn = !trace.rejection || trace.rejection.objects[row] >= chosen.rejection;
      (isIn && trace.shallow[row].length ? rows : rejected).push(row);
    }
    let passing = { scored: trace.cascade ? [] : rows, copies: [] };
    if (trace.cascade) {
      const own = Float32Array.from(rows.flatMap((row) => [...trace.boxes.subarray(4 * row, 4 * row + 4)]));
      const found = Engine.passes(
        Float64Array.from(rows, (row) => trace.first[row]),
        own,
        { threshold: chosen.cascade, best: chosen.best, near: chosen.near },
      );
      passing = { scored: found.scored.map((at) => rows[at]), copies: found.copies.map((at) => rows[at]) };
    }
    const isScored = new Set(passing.scored),
      isCopy = new Set(passing.copies);
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
      return offsets
        ? Engine.moved(trace.boxes, row, offsets, 4 * label, trace.data.width, trace.data.height)
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

  /** IoU of an object {box, label} with each region: where it is scored, with its box moved for the object's class. */
  function overlaps(trace, result, { box, label }) {
    return Array.from({ length: trace.regions }, (_, row) =>
      result.scores.has(row) ? Engine.overlap(box, result.box(row, label)) : Engine.iou(box, 0, trace.boxes, row),
    );
  }

  /** The detection that finds each object: each, the best first, finds the free object that it overlaps most. */
  function finders(result, objects, all, minIou) {
    const found = new Map();
    for (const one of result.detections) {
      const free = objects
        .map((object, at) => at)
        .filter((at) => objects[at].label === one.label && !found.has(at) && all[at][one.row] >= minIou);
      if (free.length)
        found.set(
          free.reduce((best, at) => (all[at][one.row] > all[best][one.row] ? at : best)),
          one,
        );
    }
    return found;
  }

  /**
   * Where each object {box: [4], label: 0..K-1} was lost, in the words of the evaluation's stage fates
   * (experiments/stages.py). Returns [{stage, best: row, bestIou, covering: [{row, iou}], right, wanted, hit}].
   */
  function fates(trace, result, chosen, objects, minIou = 0.5) {
    const all = objects.map((object) => overlaps(trace, result, object));
    const found = finders(result, objects, all, minIou);
    return objects.map(({ label }, at) => {
      const covering = all[at].map((iou, row) => ({ row, iou })).filter((one) => one.iou >= minIou);
      const best = all[at].reduce((top, iou, row) => (iou > all[at][top] ? row : top), 0);
      const wanted = chosen.minScores ? chosen.minScores[label] : chosen.minScore;
      const score = (row) => (result.scores.has(row) ? result.scores.get(row).probabilities : null);
      const right = covering.filter(({ row }) => score(row) && score(row)[label + 1] >= Math.max(...score(row)));
      const above = covering.filter(({ row }) => score(row) && score(row)[label + 1] >= wanted);
      const isLeft = (list) => list.some((one) => one.label === label && all[at][one.row] >= minIou);
      const losses = [
        ["never proposed", !covering.length],
        ["misclassified", !right.length],
        ["below the score", !above.length],
        ["suppressed by NMS", !isLeft(result.detections) && !isLeft(result.beyond)],
        ["beyond the limit per image", !isLeft(result.detections)],
      ];
      const [stage] = found.has(at) ? ["found"] : losses.find(([, isLost]) => isLost) || ["one box for two objects"];
      return { stage, best, bestIou: all[at][best] || 0, covering, right, above, wanted, hit: found.get(at) || null };
    });
  }

  /** Who suppressed a region's box of a class most: {row, iou, to}, to is the score that is left; null for nobody. */
  function suppressor(result, label, row) {
    const own = result.playback.find((each) => each.label === label),
      at = result.all.indexOf(row);
    let by = null,
      left = 0;
    for (const { winner, dropped, lowered } of own ? own.result.steps : []) {
      const change = (dropped || lowered).find((one) => one.position === at);
      if (!change) continue;
      if (lowered) left = change.to;
      if (!by || change.iou > by.iou) by = { row: result.all[winner], iou: change.iou };
    }
    return by && { ...by, to: left };
  }

  return { read, settings, compute, fates, suppressor, mean };
})();

if (typeof module !== "undefined") module.exports = State;
