// The stages that score regions: votes, rejection and cascade, box regression.
"use strict";

/** The label, 0..K-1, of the most probable class besides background. */
function bestClass(probabilities) {
  let best = 0;
  for (let label = 0; label < probabilities.length - 1; label++) {
    if (probabilities[label + 1] > probabilities[best + 1]) best = label;
  }
  return best;
}

/** Regions that are worth a look: those of the detections, the tiles, then the best others. */
function notable(page, most = 40) {
  const { result, data } = page;
  const rows = [...result.detections.map((one) => one.row), ...data.tiles.map((tile) => tile.row)];
  const value = new Map(
    [...result.scores].map(([row, { probabilities }]) => [row, probabilities[bestClass(probabilities) + 1]]),
  );
  const best = [...value.keys()].sort((a, b) => value.get(b) - value.get(a));
  return [...new Set([...rows, ...best.slice(0, most)])].slice(0, most);
}

function describe(page, row) {
  const scores = page.result.scores.get(row);
  if (!scores) return `region ${row + 1}: passed over`;
  const label = bestClass(scores.probabilities);
  return `region ${row + 1}: ${page.data.classes[label]} ${figure(scores.probabilities[label + 1], 2)}`;
}

/** The five most probable classes as rows of Controls.bars. */
function topClasses(page, probabilities) {
  return [...probabilities.keys()]
    .sort((a, b) => probabilities[b] - probabilities[a])
    .slice(0, 5)
    .map((at) => [
      at ? page.data.classes[at - 1] : "background",
      probabilities[at],
      figure(probabilities[at]),
      at ? "" : "unused",
    ]);
}

/** What each member makes of a region: [heading, probabilities, whether it votes]. */
function looksAt(page, row) {
  return page.trace.deep[row].map((own) => [
    `${page.memberName(own.look.member)}${own.look.mirrored ? ", mirror image" : ""}`,
    State.mean(page.trace, [own]).probabilities,
    page.chosen.members[own.look.member],
  ]);
}

function votesStage(panel, page) {
  const { data, trace } = page;
  const choice = el("div"),
    ticks = el("fieldset", {}, el("legend", {}, "Members that vote")),
    table = el("div");
  const result = el("p", { class: "readout", "aria-live": "polite" });
  const boxes = data.members.map((_, at) =>
    Controls.tick(page.memberName(at), true, (on) => {
      page.set({ members: page.chosen.members.map((own, index) => (index === at ? on : own)) });
    }),
  );
  ticks.append(...boxes);
  panel.append(choice, ticks, result, table);
  return () => {
    boxes.forEach((box, at) => {
      box.querySelector("input").checked = page.chosen.members[at];
    });
    const rows = notable(page);
    if (page.region !== null && !rows.includes(page.region)) rows.unshift(page.region);
    const row = page.region === null ? rows[0] : page.region;
    choice.replaceChildren(
      Controls.choice(
        "Region; or click one on the picture",
        rows.map((one) => [one, describe(page, one)]),
        row,
        (value) => page.set({}, { region: Number(value) }),
      ),
    );
    result.textContent = votesMake(page);
    if (row === undefined) return;
    page.regionButtons(rows.slice(0, 24));
    page.drawDetections(0.9);
    page.picture.box(trace.boxes.subarray(4 * row, 4 * row + 4), "chosen", { label: describe(page, row) });
    page.picture.key([
      ["chosen", "the region whose votes you see"],
      ["kept", "detections that follow"],
      ["other", "other regions: click one"],
    ]);
    const looks = looksAt(page, row),
      scores = page.result.scores.get(row);
    table.replaceChildren(
      el("h3", {}, "The mean that counts"),
      scores
        ? Controls.bars(topClasses(page, Float64Array.from(scores.probabilities)))
        : el(
            "p",
            {},
            looks.length
              ? "This region was passed over: it counts as background."
              : "No member has seen this region: the rejection layer dropped it.",
          ),
      ...looks.map(([name, probabilities, votes]) =>
        el("div", { class: votes ? "" : "off" }, el("h3", {}, name), Controls.bars(topClasses(page, probabilities))),
      ),
    );
  };
}

function votesMake(page) {
  const off = page.chosen.members.filter((on) => !on).length,
    all = page.chosen.members.length;
  if (off === all) return "Nobody votes, so nothing is found. Switch a member on.";
  const words = counted(page.result.detections.length, "detection");
  return off
    ? `${words} with ${all - off} of ${all} members. Which regions pass the cascade stays as it was.`
    : `${words} with all members.`;
}

// ---- rejection and cascade

const SHOWN = {
  passed: "scored by all members",
  "passed-over": "seen by the first member alone",
  dropped: "rejected by the layer",
};

/** The two thresholds as [name of the setting, slider, histogram]. */
function thresholds(page) {
  const { trace, data } = page,
    result = [];
  const add = (name, label, low, max, values, of) => {
    const slider = Controls.slider(label, {
      min: low,
      max,
      step: 0.001,
      value: page.chosen[name],
      show: (v) => v.toFixed(3),
      change: (value) => page.set({ [name]: value }),
    });
    result.push([name, slider, Controls.histogram(values, { min: low, max, name: of })]);
  };
  if (trace.rejection) {
    add(
      "rejection",
      "Rejection: a region is dropped whose probability of any object is below",
      Math.min(trace.lowest.rejection * 1.0001 + 1e-6, trace.rejection.threshold),
      0.9,
      [...trace.rejection.objects],
      "All proposals, as the layer judges them",
    );
  }
  if (trace.cascade) {
    add(
      "cascade",
      "Cascade: all members look where the first gives any object more than",
      Math.min(trace.lowest.cascade * 1.0001 + 1e-6, data.settings.cascade.threshold),
      0.99,
      trace.first.filter((value) => value !== null),
      "Regions as the first member judges them",
    );
  }
  return result;
}

function cascadeStage(panel, page) {
  const { trace } = page,
    again = thresholds(page);
  const info = el("p", { class: "readout", "aria-live": "polite" }),
    bars = el("div");
  let shown = "passed";
  if (!again.length)
    panel.append(
      el(
        "p",
        { class: "readout" },
        "This detector lets every member score every region, as the paper's entry did. Nothing is passed over.",
      ),
    );
  panel.append(
    ...again.flatMap(([, slider, histogram]) => [slider, histogram]),
    info,
    bars,
    Controls.choice("Regions on the picture", [...Object.entries(SHOWN), ["all", "all of them"]], shown, (value) => {
      shown = value;
      page.render();
    }),
    el("p", { class: "quiet" }, extraTime(page)),
  );
  return () => {
    again.forEach(([name, slider, histogram]) => {
      slider.set(page.chosen[name]);
      histogram.set(page.chosen[name]);
    });
    const groups = cascadeGroups(page);
    for (const kind of ["dropped", "passed-over", "passed"].filter((one) => shown === "all" || shown === one)) {
      const opacity = groups[kind].length > 150 ? 0.3 : 0.7;
      groups[kind]
        .slice(0, 500)
        .forEach((row) =>
          page.picture.box(trace.boxes.subarray(4 * row, 4 * row + 4), kind, { title: describe(page, row), opacity }),
        );
    }
    page.drawDetections(1, true);
    page.picture.key([...Object.entries(SHOWN), ["kept", "detections"]]);
    info.textContent = cascadeMakes(page);
    bars.replaceChildren(cascadeBars(page));
  };
}

function cascadeGroups(page) {
  const { rows, rejected, passing, isScored } = page.result;
  return { dropped: rejected, "passed-over": rows.filter((row) => !isScored.has(row)), passed: passing.scored };
}

function cascadeMakes(page) {
  const { seconds, detections } = page.result;
  const spent = Object.values(page.data.seconds).reduce((sum, value) => sum + value, 0);
  const words = `${counted(detections.length, "detection")} in a predicted ${figure(seconds, 2)} s`;
  const meaning = "Predicted means: what depends on the number of regions grows with it.";
  return `${words}; the run took ${figure(spent, 2)} s. ${meaning}`;
}

function cascadeBars(page) {
  const { rows, passing } = page.result,
    all = page.trace.count || 1;
  return Controls.bars([
    ["proposals", 1, amount(page.trace.count)],
    ["not rejected", rows.length / all, amount(rows.length)],
    ["scored by all members", passing.scored.length / all, amount(passing.scored.length)],
    ["left out as near-copies", passing.copies.length / all, amount(passing.copies.length), "unused"],
  ]);
}

/** What was computed for this page alone. */
function extraTime(page) {
  const spent = Object.entries(page.data.extraSeconds).map(([name, value]) => `${name}, ${figure(value, 1)} s`);
  return spent.length ? `Computed for this page, and in none of the times above: ${spent.join("; ")}.` : "";
}

// ---- box regression

function regressionStage(panel, page) {
  const { trace } = page;
  const info = el("p", { class: "readout", "aria-live": "polite" }),
    choice = el("div"),
    table = el("div");
  panel.append(choice, info, table);
  return () => {
    const rows = notable(page).filter((row) => page.result.scores.has(row));
    const row = page.region !== null && page.result.scores.has(page.region) ? page.region : rows[0];
    choice.replaceChildren(
      Controls.choice(
        "Region; or click one on the picture",
        rows.map((one) => [one, describe(page, one)]),
        row,
        (value) => page.set({}, { region: Number(value) }),
      ),
    );
    if (row === undefined) {
      info.textContent = "No region has scores.";
      return;
    }
    const { probabilities, offsets } = page.result.scores.get(row),
      label = bestClass(probabilities);
    const from = [...trace.boxes.subarray(4 * row, 4 * row + 4)],
      to = page.result.box(row, label);
    page.regionButtons(rows.slice(0, 16));
    page.picture.box(from, "window", { title: "the proposal" });
    if (!offsets) {
      info.textContent = "This detector moves no boxes: the paper's entry had no box regression.";
      return;
    }
    page.objects.forEach((object) => page.picture.box(object.box, "truth", { title: page.nameOf(object) }));
    page.picture.box(to, "chosen", { label: page.data.classes[label] });
    for (const [x, y] of [
      [0, 1],
      [2, 1],
      [0, 3],
      [2, 3],
    ])
      page.picture.arrow([from[x], from[y]], [to[x], to[y]], "chosen");
    page.picture.key([
      ["window", "the proposal"],
      ["chosen", "where it moves"],
      ["truth", "true object"],
      ["other", "other regions: click one"],
    ]);
    const name = page.data.classes[label];
    info.textContent = `As a ${name}, the box ${Controls.corners(from)} moves to ${Controls.corners(to)}.`;
    table.replaceChildren(offsetTable(offsets.slice(4 * label, 4 * label + 4)), ...gains(page, from, to));
  };
}

function offsetTable(moves) {
  const [dx, dy, dw, dh] = moves,
    clamped = (value) => Math.exp(Math.min(Math.max(value, -Math.log(4)), Math.log(4)));
  return Controls.table(
    ["offset", "value", "what it does"],
    [
      ["dx", figure(dx), `moves by ${figure(Math.abs(dx), 2)} of the width to the ${dx < 0 ? "left" : "right"}`],
      ["dy", figure(dy), `moves by ${figure(Math.abs(dy), 2)} of the height ${dy < 0 ? "up" : "down"}`],
      ["dw", figure(dw), `width × ${figure(clamped(dw), 2)}`],
      ["dh", figure(dh), `height × ${figure(clamped(dh), 2)}`],
    ],
    "The four numbers that the network predicts",
  );
}

/** IoU with the objects that the box meets, before and after. */
function gains(page, from, to) {
  const rows = page.objects
    .map((object) => [object, Engine.overlap(object.box, from), Engine.overlap(object.box, to)])
    .filter(([, before, after]) => Math.max(before, after) > 0.1)
    .sort((a, b) => b[2] - a[2])
    .slice(0, 5);
  if (!rows.length) return [];
  return [
    Controls.table(
      ["object", "IoU before", "IoU after"],
      rows.map(([object, before, after]) => [page.nameOf(object), figure(before, 2), figure(after, 2)]),
      "Overlap with the objects",
    ),
  ];
}
