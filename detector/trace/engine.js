// What the page computes again when a reader moves a slider: the same rules as detector/suppression.py, scoring.py,
// scores.py, regions/offsets.py and experiments/stages.py, held against them on random cases by
// tests/test_trace_engine.py.
// Boxes are flat arrays of x1, y1, x2, y2; N regions, K classes, column 0 of probabilities is background.
"use strict";

const Engine = (() => {
  const LARGEST = Math.log(4); // no box grows or shrinks more than fourfold
  const TYPES = { f4: Float32Array, f8: Float64Array, i4: Int32Array, u1: Uint8Array, u2: Uint16Array };

  /** Unpack an array of the page's data: {data, shape}. */
  function unpack(content) {
    const bytes = Uint8Array.from(atob(content.data), (letter) => letter.charCodeAt(0));
    return { data: new TYPES[content.type](bytes.buffer), shape: content.shape };
  }

  function area(boxes, i) {
    return (boxes[4 * i + 2] - boxes[4 * i]) * (boxes[4 * i + 3] - boxes[4 * i + 1]);
  }

  /** IoU of box i of one array and box j of another. */
  function iou(a, i, b, j) {
    const width = Math.min(a[4 * i + 2], b[4 * j + 2]) - Math.max(a[4 * i], b[4 * j]);
    const height = Math.min(a[4 * i + 3], b[4 * j + 3]) - Math.max(a[4 * i + 1], b[4 * j + 1]);
    const common = Math.max(width, 0) * Math.max(height, 0);
    return common > 0 ? common / (area(a, i) + area(b, j) - common) : 0;
  }

  /** IoU of two boxes [x1, y1, x2, y2]. */
  const overlap = (a, b) => iou(a, 0, b, 0);

  /** Box i moved by four offsets and clipped to the image; where nothing would remain, box i itself. */
  function moved(boxes, i, offsets, at, width, height) {
    const [x1, y1, x2, y2] = boxes.subarray(4 * i, 4 * i + 4);
    const w = x2 - x1,
      h = y2 - y1;
    const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
    const x = (x1 + x2) / 2 + offsets[at] * w,
      y = (y1 + y2) / 2 + offsets[at + 1] * h;
    const halfW = (w / 2) * Math.exp(clamp(offsets[at + 2], -LARGEST, LARGEST));
    const halfH = (h / 2) * Math.exp(clamp(offsets[at + 3], -LARGEST, LARGEST));
    const result = [
      clamp(x - halfW, 0, width),
      clamp(y - halfH, 0, height),
      clamp(x + halfW, 0, width),
      clamp(y + halfH, 0, height),
    ];
    return result[2] > result[0] && result[3] > result[1] ? result : [x1, y1, x2, y2];
  }

  /** Positions sorted by falling value; of equal ones the first comes first. */
  function ranked(positions, value) {
    return [...positions].sort((a, b) => value(b) - value(a) || a - b);
  }

  /**
   * Greedy suppression within one class (R-CNN): winners, and for each the boxes that it drops.
   * Returns {kept: positions, steps: [{winner, dropped: [{position, iou}]}]}.
   */
  function suppress(boxes, scores, minScore, maxIou) {
    let left = ranked(scores.keys(), (i) => scores[i]).filter((i) => scores[i] > minScore);
    const kept = [],
      steps = [];
    while (left.length) {
      const winner = left[0],
        dropped = [],
        others = [];
      for (const position of left.slice(1)) {
        const overlap = iou(boxes, winner, boxes, position);
        if (overlap > maxIou) dropped.push({ position, iou: overlap });
        else others.push(position);
      }
      kept.push(winner);
      steps.push({ winner, dropped });
      left = others;
    }
    return { kept, steps };
  }

  /**
   * Soft-NMS within one class (Bodla et al.): every box is taken in turn, the best first, and lowers those that it
   * overlaps. Returns {kept, scores: lowered, of those kept, steps: [{winner, score, lowered: [{position, iou, to}]}]}.
   */
  function soften(boxes, scores, minScore, sigma) {
    const left = [...scores.keys()].filter((i) => scores[i] > minScore);
    const values = new Map(left.map((i) => [i, scores[i]]));
    const kept = [],
      steps = [],
      lowered = [];
    while (left.length) {
      let best = 0;
      for (let at = 1; at < left.length; at++) {
        const one = values.get(left[at]),
          other = values.get(left[best]);
        if (one > other || (one === other && left[at] < left[best])) best = at;
      }
      const [winner] = left.splice(best, 1);
      const score = values.get(winner),
        changes = [];
      for (const position of left) {
        const overlap = iou(boxes, winner, boxes, position);
        if (overlap > 0) {
          const to = values.get(position) * Math.exp((-overlap * overlap) / sigma);
          values.set(position, to);
          changes.push({ position, iou: overlap, to });
        }
      }
      if (score > minScore) {
        kept.push(winner);
        lowered.push(score);
        steps.push({ winner, score, lowered: changes });
      }
    }
    return { kept, scores: lowered, steps };
  }

  /** Box voting: the mean of the boxes of a class that overlap a kept one, weighted by their scores. */
  function vote(boxes, weights, kept, minIou) {
    const sums = [0, 0, 0, 0];
    let total = 0;
    const box = Float64Array.from(kept);
    for (let i = 0; i < weights.length; i++) {
      if (iou(box, 0, boxes, i) >= minIou) {
        total += weights[i];
        for (let corner = 0; corner < 4; corner++) sums[corner] += weights[i] * boxes[4 * i + corner];
      }
    }
    return total > 0 ? sums.map((sum) => sum / total) : [...kept];
  }

  /** The regions that a cascade passes on: {scored, copies}, ascending (scoring.passes). */
  function passes(objects, boxes, config) {
    const all = [...objects.keys()];
    if (!(config.threshold > 0)) return { scored: all, copies: [] };
    const best = new Set(ranked(all, (i) => objects[i]).slice(0, config.best));
    const passing = all.filter((i) => objects[i] > 0 && (objects[i] > config.threshold || best.has(i)));
    if (config.near === 1 || !passing.length) return { scored: passing, copies: [] };
    const own = Float64Array.from(passing.flatMap((i) => [...boxes.subarray(4 * i, 4 * i + 4)]));
    const { kept } = suppress(
      own,
      passing.map((i) => objects[i]),
      -1,
      config.near,
    );
    const scored = kept.map((at) => passing[at]).sort((a, b) => a - b);
    const chosen = new Set(scored);
    return { scored, copies: passing.filter((i) => !chosen.has(i)) };
  }

  /** The mean of rows of several arrays of the same length. */
  function mean(rows) {
    return Array.from(rows[0], (_, column) => rows.reduce((sum, row) => sum + row[column], 0) / rows.length);
  }

  /**
   * Turn scores into detections, best first (suppression.suppress).
   * probabilities(i, label) and box(i, label) -> [x1, y1, x2, y2] of regions `rows`, labels 0..K-1.
   * settings: minScores [K] or null, minScore, maxIou, softSigma, limit, vote.
   */
  function detect(rows, classes, probability, box, settings) {
    const lowest = settings.minScores ? Math.min(...settings.minScores) * (1 - 1e-6) : settings.minScore;
    const found = [],
      playback = [];
    for (let label = 0; label < classes; label++) {
      const scores = Float64Array.from(rows, (i) => probability(i, label));
      if (!scores.some((score) => score > lowest)) continue;
      const boxes = Float64Array.from(rows.flatMap((i) => box(i, label)));
      const result = settings.softSigma
        ? soften(boxes, scores, lowest, settings.softSigma)
        : suppress(boxes, scores, lowest, settings.maxIou);
      playback.push({ label, boxes, scores, result });
      result.kept.forEach((at, place) => {
        const score = settings.softSigma ? result.scores[place] : scores[at];
        found.push({ row: rows[at], label, score, before: scores[at], box: [...boxes.subarray(4 * at, 4 * at + 4)] });
      });
    }
    found.sort((a, b) => b.score - a.score || a.row - b.row || a.label - b.label);
    const shown = found.filter((one) => !settings.minScores || one.score >= settings.minScores[one.label]);
    const limited = shown.slice(0, settings.limit);
    if (settings.vote) {
      for (const one of limited) {
        const { boxes, scores } = playback.find((each) => each.label === one.label);
        one.box = vote(boxes, scores, one.box, settings.vote);
      }
    }
    return { detections: limited, beyond: shown.slice(settings.limit), playback };
  }

  /**
   * Match detections, best first, to objects [{box, label, ignored}] by PASCAL VOC's rule (evaluation/matching.py):
   * each meets the object of its class that it overlaps most. An object is found once; a second detection is wrong.
   * Returns for each detection {status: 1 right, 0 wrong, -1 does not count; object: its position or -1}.
   */
  function match(detections, objects, minIou = 0.5) {
    const taken = new Set();
    return detections.map((one) => {
      let best = -1,
        most = 0;
      objects.forEach((object, at) => {
        const own = object.label === one.label ? overlap(object.box, one.box) : 0;
        if (own > most) [best, most] = [at, own];
      });
      if (best < 0 || most < minIou) return { status: 0, object: -1 };
      if (objects[best].ignored) return { status: -1, object: best };
      if (taken.has(best)) return { status: 0, object: best };
      taken.add(best);
      return { status: 1, object: best };
    });
  }

  /** Average precision as the area under the curve with its envelope (VOC 2010), of hits sorted best first. */
  function averagePrecision(hits, positives) {
    let found = 0;
    const precision = [],
      recall = [];
    hits.forEach((hit, at) => {
      found += hit;
      precision.push(found / (at + 1));
      recall.push(found / positives);
    });
    let total = 0,
      envelope = 0;
    for (let at = hits.length - 1; at >= 0; at--) {
      envelope = Math.max(envelope, precision[at]);
      total += (recall[at] - (at ? recall[at - 1] : 0)) * envelope;
    }
    return positives ? total : null;
  }

  return {
    unpack,
    area,
    iou,
    overlap,
    moved,
    ranked,
    suppress,
    soften,
    vote,
    passes,
    mean,
    detect,
    match,
    averagePrecision,
  };
})();

if (typeof module !== "undefined") module.exports = Engine;
