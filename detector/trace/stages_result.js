// The stages that choose among boxes: suppression, result.
"use strict";

function suppressionStage(panel, page) {
  let label = null,
    step = 0,
    slider = null;
  const choice = el("div"),
    info = el("p", { class: "readout", "aria-live": "polite" }),
    slot = el("div"),
    list = el("div");
  const rules = suppressionRules(page);
  panel.append(
    choice,
    slot,
    info,
    list,
    el("details", { open: true }, el("summary", {}, "Change the rule"), ...rules.nodes),
  );
  const go = (to, most) => {
    step = Math.min(Math.max(to, 0), most);
    page.render();
  };
  const makeSlider = (most) => {
    slider = Controls.slider("Winner", {
      min: 0,
      max: Math.max(most, 0),
      step: 1,
      value: step,
      show: (v) => `${v + 1} of ${most + 1}`,
      change: (value) => go(value, most),
    });
    slider.most = most;
    slot.replaceChildren(
      slider,
      el(
        "p",
        { class: "buttons" },
        Controls.button("One back", () => go(step - 1, most)),
        Controls.button("One further", () => go(step + 1, most)),
        page.player(() => (step < most ? (go(step + 1, most), true) : false)),
      ),
    );
  };
  return () => {
    const { playback } = page.result;
    rules.refresh();
    if (!playback.length) {
      [choice, slot, list].forEach((node) => node.replaceChildren());
      slider = null;
      info.textContent = "No box has a score above the lowest one.";
      return;
    }
    const best = [...playback].sort((a, b) => Math.max(...b.scores) - Math.max(...a.scores));
    const own = playback.find((one) => one.label === label) || best[0];
    label = own.label;
    choice.replaceChildren(
      Controls.choice(
        "Class",
        best.map((one) => [one.label, aboutClass(page, one)]),
        label,
        (value) => {
          label = Number(value);
          step = 0;
          page.render();
        },
      ),
    );
    const most = own.result.steps.length - 1;
    step = Math.min(step, Math.max(most, 0));
    if (!slider || slider.most !== most) makeSlider(most);
    slider.set(step);
    if (most < 0) {
      info.textContent = "No box of this class is left.";
      list.replaceChildren();
      return;
    }
    const changes = drawWinner(page, own, step);
    info.textContent = aboutWinner(page, own, step, changes);
    list.replaceChildren(changes.length ? changeTable(page, own, changes) : "");
  };
}

/** The controls of the rule, and what sets them to the settings of now. */
function suppressionRules(page) {
  const sigmaOfRun = page.data.settings.suppression.soft_sigma || 0.5;
  const kind = Controls.choice(
    "Rule",
    [
      ["soft", "soft: lower the scores of copies"],
      ["hard", "hard: drop copies"],
    ],
    page.chosen.softSigma ? "soft" : "hard",
    (value) => page.set({ softSigma: value === "soft" ? sigmaOfRun : 0 }),
  );
  const two = (v) => v.toFixed(2);
  const iou = Controls.slider("Hard: a copy overlaps the winner by an IoU of more than", {
    min: 0,
    max: 1,
    step: 0.01,
    value: page.chosen.maxIou,
    show: two,
    change: (value) => page.set({ maxIou: value }),
  });
  const sigma = Controls.slider("Soft: sigma; the smaller, the more a copy loses", {
    min: 0.05,
    max: 1,
    step: 0.01,
    value: page.chosen.softSigma || sigmaOfRun,
    show: two,
    change: (value) => page.chosen.softSigma && page.set({ softSigma: value }),
  });
  const lowest = Controls.slider("Lowest score that takes part, for all classes", {
    min: 0.001,
    max: 0.9,
    step: 0.001,
    value: page.lowest(),
    show: (v) => v.toFixed(3),
    change: (value) => page.set({ minScores: null, minScore: value }),
  });
  const refresh = () => {
    const isSoft = Boolean(page.chosen.softSigma);
    kind.querySelector("select").value = isSoft ? "soft" : "hard";
    [iou.hidden, sigma.hidden] = [isSoft, !isSoft];
    iou.set(page.chosen.maxIou);
    if (isSoft) sigma.set(page.chosen.softSigma);
    lowest.set(page.lowest(), page.chosen.minScores ? "by class" : page.lowest().toFixed(3));
  };
  return { nodes: [kind, iou, sigma, lowest], refresh };
}

function aboutClass(page, one) {
  const boxes = one.scores.filter((score) => score > page.lowest() * (1 - 1e-6)).length;
  const winners = counted(one.result.steps.length, "winner");
  return `${page.data.classes[one.label]}: ${winners} of ${counted(boxes, "box", "boxes")}`;
}

const boxAt = (own, at) => [...own.boxes.subarray(4 * at, 4 * at + 4)];

/** Draw a winner, those before it, and what it drops or lowers; returns the latter, nearest first. */
function drawWinner(page, own, step) {
  const { steps } = own.result,
    { winner, score = own.scores[winner], dropped, lowered } = steps[step];
  const changes = (dropped || lowered).slice().sort((a, b) => b.iou - a.iou);
  changes
    .slice(0, 60)
    .reverse()
    .forEach((one) =>
      page.picture.box(boxAt(own, one.position), "dropped", {
        title: `IoU ${figure(one.iou, 2)}`,
        opacity: 0.7,
      }),
    );
  steps.slice(0, step).forEach((one) => page.picture.box(boxAt(own, one.winner), "kept", { opacity: 0.5 }));
  page.picture.box(boxAt(own, winner), "chosen", {
    label: `${page.data.classes[own.label]} ${figure(score, 2)}`,
  });
  changes
    .slice(0, 6)
    .forEach((one) => page.picture.label(`IoU ${figure(one.iou, 2)}`, boxAt(own, one.position), "dropped"));
  page.picture.key([
    ["chosen", "the winner of this step"],
    ["kept", "winners before"],
    ["dropped", dropped ? "dropped as a copy" : "its score is lowered"],
  ]);
  return changes;
}

function aboutWinner(page, own, step, changes) {
  const { winner, score = own.scores[winner], dropped } = own.result.steps[step];
  const shownFrom = page.chosen.minScores ? page.chosen.minScores[own.label] : page.chosen.minScore;
  const words =
    `Winner ${step + 1} has the best score that is left, ${figure(score)}.` +
    (score < shownFrom ? ` It is not shown: a ${page.data.classes[own.label]} needs ${figure(shownFrom)}.` : "");
  return changes.length
    ? `${words} It ${dropped ? "drops" : "lowers"} ${counted(changes.length, "box", "boxes")} of its class.`
    : `${words} No other box of its class that is left overlaps it${dropped ? " by more than the limit" : ""}.`;
}

function changeTable(page, own, changes) {
  const isSoft = changes[0].to !== undefined,
    sigma = page.chosen.softSigma;
  const rows = changes
    .slice(0, 12)
    .map((one) => [
      `region ${page.result.all[one.position] + 1}`,
      figure(one.iou, 2),
      figure(isSoft ? one.to / Math.exp((-one.iou * one.iou) / sigma) : own.scores[one.position]),
      ...(isSoft ? [figure(one.to)] : []),
    ]);
  const more = changes.length > 12 ? `, the nearest 12 of ${changes.length}` : "";
  return Controls.table(
    ["box", "IoU", isSoft ? "score before" : "score", ...(isSoft ? ["score after"] : [])],
    rows,
    `${isSoft ? "Lowered" : "Dropped"}${more}`,
  );
}

// ---- result

function resultStage(panel, page) {
  const { data } = page;
  let threshold = data.minScores ? null : page.chosen.minScore,
    only = "";
  const info = el("p", { class: "readout", "aria-live": "polite" }),
    table = el("div"),
    plot = el("div");
  const slider = Controls.slider("Lowest score that is shown", {
    min: 0.001,
    max: 1,
    step: 0.001,
    value: threshold || 0.5,
    show: (v) => v.toFixed(3),
    change: (value) => {
      threshold = value;
      page.render();
    },
  });
  const known = [...new Set(page.objects.filter((one) => one.label >= 0 && !one.ignored).map((one) => one.label))];
  const choice =
    known.length > 1
      ? Controls.choice(
          "Class",
          [["", "all together"], ...known.map((label) => [label, data.classes[label]])],
          "",
          (value) => {
            only = value;
            page.render();
          },
        )
      : "";
  panel.append(
    slider,
    data.minScores
      ? Controls.button("Each class from its own threshold", () => {
          threshold = null;
          page.render();
        })
      : "",
    choice,
    info,
    table,
    plot,
  );
  return () => {
    const isIn = (one) => only === "" || one.label === Number(only);
    const from = (one) => (threshold === null ? State.settings(page.trace).minScores[one.label] : threshold);
    const all = page.ranked().filter(isIn),
      judged = page.judge(all),
      shown = all.filter((one) => one.score >= from(one));
    const real = page.objects.filter((object) => !object.ignored && object.label >= 0 && isIn(object));
    if (threshold === null) slider.set(0.5, "by class");
    drawResult(page, shown, judged, real);
    table.replaceChildren(resultTable(page, shown, judged, real, from));
    const words = threshold === null ? "Each class from its own threshold" : `Scores from ${figure(threshold)}`;
    if (!real.length) {
      info.textContent =
        `${words}: ${counted(shown.length, "detection")}. ` +
        "Without true boxes there is no precision and no recall; detect --annotations PATH adds them.";
      plot.replaceChildren();
      return;
    }
    const rest = shown.filter((one) => judged.get(one) >= 0),
      hits = shown.filter((one) => judged.get(one) === 1).length;
    const ratio = (whole) => (whole ? `${hits} / ${whole} = ${figure(hits / whole, 2)}` : "–");
    const wrong = counted(rest.length - hits, "detection");
    info.textContent =
      `${words}: ${hits} of ${counted(real.length, "object")} found, ${wrong} wrong. ` +
      `Precision ${ratio(rest.length)}, recall ${ratio(real.length)}.`;
    plot.replaceChildren(
      ...precisionCurve(all, judged, real.length, rest.length ? [hits / real.length, hits / rest.length] : null),
    );
  };
}

function drawResult(page, shown, judged, real) {
  const { data } = page;
  page.objects.forEach((object) =>
    page.picture.box(object.box, "truth", { title: `Why? ${page.nameOf(object)}`, press: () => page.ask({ object }) }),
  );
  const kind = (one) => (real.length && judged.get(one) === 0 ? "false" : "hit");
  shown.forEach((one) =>
    page.picture.box(one.box, kind(one), {
      label: `${data.classes[one.label]} ${figure(one.score, 2)}`,
      title: `Why? ${data.classes[one.label]}`,
      press: () => page.ask({ detection: one }),
    }),
  );
  page.picture.key([
    ["hit", real.length ? "right detection" : "detection"],
    ["false", "wrong detection"],
    ["truth", "true object"],
  ]);
}

function resultTable(page, shown, judged, real, from) {
  const words = { 1: "yes", 0: "no", "-1": "not real" };
  return Controls.table(
    ["detection", "score", "shown from", "box, px", ...(real.length ? ["right?"] : [])],
    shown.slice(0, 30).map((one) => [
      Controls.button(page.data.classes[one.label], () => page.ask({ detection: one }), {
        class: "link",
        "aria-label": `Why ${page.data.classes[one.label]}?`,
      }),
      figure(one.score),
      figure(from(one)),
      Controls.corners(one.box),
      ...(real.length ? [words[judged.get(one)]] : []),
    ]),
    `Detections, best first${shown.length > 30 ? `, the first 30 of ${shown.length}` : ""}`,
  );
}

/** Precision over recall of all detections that count, best first. */
function precisionCurve(all, judged, positives, mark) {
  const points = [],
    hits = all.filter((one) => judged.get(one) >= 0).map((one) => judged.get(one));
  let found = 0;
  hits.forEach((hit, at) => {
    found += hit;
    points.push([found / positives, found / (at + 1)]);
  });
  if (points.length) points.unshift([0, points[0][1]]);
  const ap = Engine.averagePrecision(hits, positives);
  return [
    Controls.curve([{ name: "this image", points }], {
      x: "recall",
      y: "Precision over recall; the dot is the threshold of now",
      mark,
    }),
    el(
      "p",
      { class: "quiet" },
      `The area under the curve, without its notches, is the average precision: ${figure(ap)} on this image. ` +
        "An evaluation takes it for each class over all images of a data set. " +
        "The mean of the classes is mean average precision, mAP.",
    ),
  ];
}
