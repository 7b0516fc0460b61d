// The question why: each object's way through the stages, in the words of the evaluation (experiments/stages.py).
"use strict";

function whyStage(panel, page) {
  const answer = el("div", { class: "answer", "aria-live": "polite" }),
    choose = el("div"),
    list = el("div");
  panel.append(
    el("p", {}, "Click a detection or an object on the picture, or draw a box around something that was missed."),
    choose,
    answer,
    list,
    boxFields(page),
  );
  return () => {
    const { asked } = page,
      { data } = page;
    page.picture.drawn = (box) => page.addObject(box);
    const ranked = page.ranked().filter((one) => page.isShown(one));
    const few = !asked && ranked.length + page.objects.length < 12;
    page.objects.forEach((object) =>
      page.picture.box(object.box, "truth", {
        label: few ? page.nameOf(object) : "",
        title: `Why? ${page.nameOf(object)}`,
        press: () => page.ask({ object }),
      }),
    );
    ranked.forEach((one) =>
      page.picture.box(one.box, "hit", {
        label: asked ? "" : data.classes[one.label],
        title: `Why this ${data.classes[one.label]}?`,
        press: () => page.ask({ detection: one }),
        opacity: asked ? 0.5 : 1,
      }),
    );
    list.replaceChildren(...askButtons(page, ranked));
    choose.replaceChildren();
    if (!asked) answer.replaceChildren();
    else if (asked.detection) answer.replaceChildren(...explainDetection(page, asked.detection));
    else {
      const label = asked.object.label >= 0 ? asked.object.label : page.guess(asked.object);
      choose.replaceChildren(
        Controls.choice(
          "Asked as",
          data.classes.map((name, at) => [at, name]),
          label,
          (value) => {
            asked.object.asked = Number(value);
            page.render();
          },
        ),
      );
      answer.replaceChildren(
        ...explainObject(page, asked.object, asked.object.asked === undefined ? label : asked.object.asked),
      );
      choose.querySelector("select").value = asked.object.asked === undefined ? label : asked.object.asked;
    }
    page.picture.key([
      ["drawn", "what you ask about"],
      ["chosen", "what you ask about"],
      ["window", "the best proposal for it"],
      ["false", "the box that suppressed it"],
      ["hit", "detections"],
      ["truth", "objects"],
    ]);
  };
}

/** Four numbers, for those who cannot draw. */
function boxFields(page) {
  const fields = ["left", "top", "right", "bottom"].map((name) =>
    el("input", { type: "number", "aria-label": `${name} edge, pixels`, placeholder: name, min: 0 }),
  );
  const problem = el("span", { class: "quiet", role: "status" });
  const ask = () => {
    const box = fields.map((field, at) =>
      Math.min(Math.max(Number(field.value), 0), at % 2 ? page.data.height : page.data.width),
    );
    const isBox = box[2] > box[0] && box[3] > box[1];
    problem.textContent = isBox ? "" : "The right edge must be right of the left one, and the bottom below the top.";
    if (isBox) page.addObject(box);
  };
  return el(
    "details",
    {},
    el("summary", {}, "By keyboard: type a box"),
    el("p", { class: "fields" }, ...fields, Controls.button("Ask", ask)),
    problem,
  );
}

/** A button for each detection, and a row for each object with the stage that lost it. */
function askButtons(page, ranked) {
  const { data } = page;
  const found = el(
    "p",
    { class: "buttons" },
    ...ranked
      .slice(0, 12)
      .map((one) =>
        Controls.button(`${data.classes[one.label]} ${figure(one.score, 2)}`, () => page.ask({ detection: one })),
      ),
  );
  const fates = page.fates();
  if (!fates.size) return [found];
  const rows = [...fates].map(([object, fate]) => [
    Controls.button(page.nameOf(object), () => page.ask({ object }), {
      class: "link",
      "aria-label": `Why? ${page.nameOf(object)}`,
    }),
    fate.stage,
    figure(fate.bestIou, 2),
  ]);
  return [
    found,
    Controls.table(
      ["object", "what became of it", "best IoU"],
      rows,
      `${counted(rows.length, "object")} and the stage that found or lost each`,
    ),
  ];
}

function explainDetection(page, one) {
  const { data, trace, result, chosen } = page;
  const own = result.playback.find((each) => each.label === one.label);
  const step = own && own.result.steps.find((each) => result.all[each.winner] === one.row);
  const changed = step ? (step.dropped || step.lowered).length : 0;
  page.picture.box(trace.boxes.subarray(4 * one.row, 4 * one.row + 4), "window", {});
  page.picture.box(one.box, "chosen", { label: `${data.classes[one.label]} ${figure(one.score, 2)}` });
  const rival = chosen.softSigma && one.score < one.before - 1e-9 ? State.suppressor(result, one.label, one.row) : null;
  if (rival) page.picture.box(result.box(rival.row, one.label), "false", { label: `IoU ${figure(rival.iou, 2)}` });
  return [
    el("h3", {}, `Why ${data.classes[one.label]} ${figure(one.score, 2)}?`),
    el(
      "p",
      {},
      one.row < trace.count
        ? `It comes from proposal ${one.row + 1}, and these members made it a ${data.classes[one.label]}:`
        : "It comes from a region of the second pass, a proposal that was moved and scored again.",
    ),
    memberBars(page, one.row, one.label),
    el(
      "p",
      {},
      `The mean is ${figure(one.before)}. ` +
        (rival
          ? `A better box of its class overlaps it by an IoU of ${figure(rival.iou, 2)}. ` +
            `Suppression left it ${figure(one.score)}. `
          : "") +
        (changed
          ? `It ${chosen.softSigma ? "lowered" : "dropped"} ${counted(changed, "box", "boxes")} of its class around it.`
          : "It overlaps no other box of its class that was left."),
    ),
  ];
}

/** What each member gives a region for a class, and the mean. */
function memberBars(page, row, label) {
  const scores = page.result.scores.get(row);
  return Controls.bars([
    ...looksAt(page, row).map(([name, probabilities, votes]) => [
      name,
      probabilities[label + 1],
      figure(probabilities[label + 1]),
      votes ? "" : "unused",
    ]),
    ...(scores
      ? [["mean that counts", scores.probabilities[label + 1], figure(scores.probabilities[label + 1]), "total"]]
      : []),
  ]);
}

/** The region that is nearest to be a detection of the object: the most probable that covers it, or the best box. */
function candidate(page, fate, label) {
  const value = ({ row }) => (page.result.scores.has(row) ? page.result.scores.get(row).probabilities[label + 1] : -1);
  const [best] = [...fate.covering].sort((a, b) => value(b) - value(a) || b.iou - a.iou);
  return best || { row: fate.best, iou: fate.bestIou };
}

function explainObject(page, object, label) {
  const fate = page.fateOf(object, label),
    name = page.data.classes[label],
    best = candidate(page, fate, label);
  const rival = fate.stage === "suppressed by NMS" ? State.suppressor(page.result, label, best.row) : null;
  const moved = page.result.scores.has(best.row)
    ? page.result.box(best.row, label)
    : page.trace.boxes.subarray(4 * best.row, 4 * best.row + 4);
  page.picture.box(moved, "window", { label: `IoU ${figure(best.iou, 2)}` });
  if (rival) page.picture.box(page.result.box(rival.row, label), "false", { label: `IoU ${figure(rival.iou, 2)}` });
  page.picture.box(object.box, "drawn", {});
  const looks = looksAt(page, best.row);
  return [
    el("h3", {}, `${name}: ${fate.stage}`),
    wayThrough(page, fate, label, best, rival),
    el("h3", {}, `What the members give region ${best.row + 1} for ${name}`),
    looks.length
      ? memberBars(page, best.row, label)
      : el("p", {}, "Nothing: the rejection layer dropped it, and it was not among those scored for this page."),
    nearest(page, fate, label),
  ];
}

/** The stages as a list: passed, failed, or never reached. */
function wayThrough(page, fate, label, best, rival) {
  const { result } = page,
    name = page.data.classes[label],
    at = [
      "never proposed",
      "misclassified",
      "below the score",
      "suppressed by NMS",
      "beyond the limit per image",
      "one box for two objects",
    ].indexOf(fate.stage);
  const lost = at < 0 ? 6 : at,
    score = (row) => (result.scores.has(row) ? result.scores.get(row).probabilities[label + 1] : 0);
  const top = Math.max(...fate.covering.map(({ row }) => score(row)), 0);
  const reach = `The best reaches ${figure(fate.bestIou, 2)}.`;
  const left = page.chosen.softSigma && rival ? `left it a score of ${figure(rival.to)}` : "dropped it";
  const texts = [
    [
      "Proposed",
      fate.covering.length
        ? `Boxes that cover it, with an IoU of 0.5 or more: ${amount(fate.covering.length)}. ${reach}`
        : `No box overlaps it by 0.5. ${reach} No classifier can find what is not proposed.`,
    ],
    [
      `Classified as ${name}`,
      fate.right.length
        ? `In ${fate.right.length} of these boxes it is the most probable class.`
        : `In none of these boxes; the best gives it ${figure(top)}${instead(page, best.row)}.`,
    ],
    [
      "Above the score",
      Number.isFinite(fate.wanted)
        ? `The best has ${figure(top)}; ${name} is shown from ${figure(fate.wanted)}.`
        : `${name} is not among the classes that were asked for.`,
    ],
    [
      "Left by suppression",
      rival
        ? `A better box of ${name} overlaps its best box by an IoU of ${figure(rival.iou, 2)}. Suppression ${left}.`
        : fate.stage === "suppressed by NMS"
          ? "A better box of its class took the place of each of them."
          : "One of its boxes was left.",
    ],
    ["Within the limit", `At most ${page.chosen.limit} detections are kept for an image.`],
    [
      "A detection of its own",
      fate.hit ? `${name} with score ${figure(fate.hit.score)}.` : "Each detection on it found another object.",
    ],
  ];
  return el(
    "ol",
    { class: "way" },
    ...texts.map(([stage, text], index) => {
      const state = index < lost ? "passed" : index === lost ? "lost" : "open";
      return el(
        "li",
        { class: state },
        el("strong", {}, `${stage}: ${{ passed: "yes", lost: "no", open: "not reached" }[state]}`),
        state === "open" ? "" : ` ${text}`,
      );
    }),
  );
}

/** What a region was taken for. */
function instead(page, row) {
  const scores = page.result.scores.get(row);
  if (!scores)
    return page.result.isCopy.has(row)
      ? ", and it was left out as a near-copy"
      : ", and the rejection layer dropped it";
  const best = scores.probabilities.reduce((top, value, at, all) => (value > all[top] ? at : top), 0);
  return `, and ${figure(scores.probabilities[best])} to ${best ? page.data.classes[best - 1] : "background"}`;
}

/** The boxes that cover an object, best first. */
function nearest(page, fate, label) {
  const { data, trace, result } = page;
  const rows = [...fate.covering].sort((a, b) => b.iou - a.iou).slice(0, 6);
  if (!rows.length) rows.push({ row: fate.best, iou: fate.bestIou });
  const state = (row) => {
    if (row >= trace.count) return "second pass";
    if (!result.scores.has(row)) return result.isCopy.has(row) ? "no: near-copy" : "no: rejected";
    return !trace.cascade || result.isScored.has(row) ? "by all members" : "by the first";
  };
  return Controls.table(
    ["region", "IoU", data.classes[label], "best class", "scored"],
    rows.map(({ row, iou }) => {
      const scores = result.scores.get(row);
      const best = scores ? scores.probabilities.reduce((top, value, at, all) => (value > all[top] ? at : top), 0) : 0;
      return [
        `${row + 1}`,
        figure(iou, 2),
        scores ? figure(scores.probabilities[label + 1]) : "–",
        scores ? (best ? data.classes[best - 1] : "background") : "–",
        state(row),
      ];
    }),
    "The boxes nearest to it",
  );
}
