// The stages that judge boxes: votes, rejection and cascade, regression, suppression, result, and the question why.
"use strict";

/** Regions that are worth a look: those of the detections, then the best others. */
function notable(page, most = 40) {
  const { result, data } = page;
  const rows = result.detections.map((one) => one.row);
  data.tiles.forEach((tile) => rows.push(tile.row));
  const best = [...result.scores].map(([row, { probabilities }]) => [row, Math.max(...probabilities.slice(1))]).sort((a, b) => b[1] - a[1]);
  return [...new Set([...rows, ...best.slice(0, most).map(([row]) => row)])].slice(0, most);
}

function describe(page, row) {
  const scores = page.result.scores.get(row);
  if (!scores) return `region ${row + 1}: passed over`;
  const label = scores.probabilities.slice(1).reduce((best, value, at, all) => (value > all[best] ? at : best), 0);
  return `region ${row + 1}: ${page.data.classes[label]} ${Controls.figure(scores.probabilities[label + 1], 2)}`;
}

function votesStage(panel, page) {
  const { data, trace } = page;
  const choice = el("div"), ticks = el("fieldset", {}, el("legend", {}, "Members that vote")), table = el("div"), result = el("p", { class: "readout", "aria-live": "polite" });
  data.members.forEach((member, at) => ticks.append(Controls.tick(member.name, true, (on) => {
    const members = page.chosen.members.map((own, index) => (index === at ? on : own));
    page.set({ members });
  })));
  panel.append(choice, ticks, table, result);
  return () => {
    const rows = notable(page);
    if (page.region === null || !rows.includes(page.region)) rows.unshift(...(page.region === null ? [] : [page.region]));
    const row = page.region === null ? rows[0] : page.region;
    choice.replaceChildren(Controls.choice("Region", rows.map((one) => [one, describe(page, one)]), row, (value) => page.set({}, { region: Number(value) })));
    if (row === undefined) return;
    page.picture.box(trace.boxes.subarray(4 * row, 4 * row + 4), "chosen", { label: `region ${row + 1}` });
    const top = (probabilities) => [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 5)
      .map((at) => [at ? data.classes[at - 1] : "background", probabilities[at], Controls.figure(probabilities[at], 3), at ? "" : "unused"]);
    const looks = trace.deep[row].map((own) => [own, State.mean(trace, [own]).probabilities]);
    table.replaceChildren(...looks.map(([{ look }, probabilities]) => el("div", { class: page.chosen.members[look.member] ? "" : "off" },
      el("h3", {}, `${data.members[look.member].name}${look.mirrored ? ", mirror image" : ""}`), Controls.bars(top(probabilities)))),
    el("h3", {}, "Mean that counts"), page.result.scores.has(row) ? Controls.bars(top(Float64Array.from(page.result.scores.get(row).probabilities)))
      : el("p", {}, looks.length ? "This region was passed over: it counts as background." : "No member has seen this region: the rejection layer dropped it."));
    const off = page.chosen.members.filter((on) => !on).length;
    result.textContent = `${Controls.counted(page.result.detections.length, "detection")}${off ? ` without ${off} of the members; who passes the cascade stays as it was judged` : ""}.`;
    page.drawDetections(0.5);
  };
}

function cascadeStage(panel, page) {
  const { trace, data } = page;
  const info = el("p", { class: "readout", "aria-live": "polite" }), bars = el("div"), again = [];
  if (trace.rejection) {
    const low = Math.min(trace.lowest.rejection * 1.0001 + 1e-6, trace.rejection.threshold);
    again.push(["rejection", Controls.slider("Rejection: least probability of an object, by the layer", {
      min: low, max: 0.9, step: 0.001, value: page.chosen.rejection, show: (v) => v.toFixed(3), change: (value) => page.set({ rejection: value }) })]);
  }
  if (trace.cascade) {
    const low = Math.min(trace.lowest.cascade * 1.0001 + 1e-6, data.settings.cascade.threshold);
    again.push(["cascade", Controls.slider("Cascade: probability of an object above which all members look, by the first", {
      min: low, max: 0.99, step: 0.001, value: page.chosen.cascade, show: (v) => v.toFixed(3), change: (value) => page.set({ cascade: value }) })]);
  }
  if (!again.length) panel.append(el("p", { class: "readout" }, "This detector lets every member score every region, as the paper's entry did. Nothing is passed over."));
  panel.append(...again.map(([, slider]) => slider), again.length ? Controls.button("Settings of the run", () => {
    const run = State.settings(trace);
    page.set({ rejection: run.rejection, cascade: run.cascade });
  }) : "", info, bars);
  return () => {
    again.forEach(([name, slider]) => slider.set(page.chosen[name]));
    const { rows, rejected, passing, seconds, detections } = page.result;
    const shown = [...rejected.slice(0, 400).map((row) => [row, "dropped"]),
      ...rows.filter((row) => !page.result.isScored.has(row)).map((row) => [row, "passed-over"]), ...passing.scored.map((row) => [row, "passed"])];
    for (const [row, kind] of shown) {
      page.picture.box(trace.boxes.subarray(4 * row, 4 * row + 4), kind, { title: describe(page, row), opacity: kind === "passed" ? 0.9 : 0.25 });
    }
    const spent = Object.values(data.seconds).reduce((sum, value) => sum + value, 0);
    info.textContent = `${Controls.counted(detections.length, "detection")}. Predicted time ${Controls.figure(seconds, 2)} s; the run took ${Controls.figure(spent, 2)} s.`;
    const all = trace.count || 1;
    bars.replaceChildren(Controls.bars([
      ["proposals", 1, Controls.amount(trace.count)],
      ["kept by the rejection layer", rows.length / all, Controls.amount(rows.length)],
      ["scored by all members", passing.scored.length / all, Controls.amount(passing.scored.length)],
      ["dropped as near-copies", passing.copies.length / all, Controls.amount(passing.copies.length), "unused"],
    ]));
  };
}

function regressionStage(panel, page) {
  const { trace } = page;
  const info = el("p", { class: "readout", "aria-live": "polite" }), choice = el("div"), table = el("div");
  panel.append(choice, info, table);
  return () => {
    const rows = notable(page).filter((row) => page.result.scores.has(row));
    const row = page.region !== null && page.result.scores.has(page.region) ? page.region : rows[0];
    choice.replaceChildren(Controls.choice("Region", rows.map((one) => [one, describe(page, one)]), row, (value) => page.set({}, { region: Number(value) })));
    if (row === undefined) return;
    const { probabilities, offsets } = page.result.scores.get(row);
    const label = probabilities.slice(1).reduce((best, value, at, all) => (value > all[best] ? at : best), 0);
    const from = [...trace.boxes.subarray(4 * row, 4 * row + 4)], to = page.result.box(row, label);
    page.picture.box(from, "window", { title: "the proposal" });
    if (!offsets) { info.textContent = "This detector moves no boxes: the paper's entry had no box regression."; return; }
    page.picture.box(to, "chosen", { label: page.data.classes[label] });
    for (const [x, y] of [[0, 1], [2, 1], [0, 3], [2, 3]]) page.picture.arrow([from[x], from[y]], [to[x], to[y]], "chosen");
    page.objects.forEach((object) => page.picture.box(object.box, "truth", {}));
    const moves = offsets.slice(4 * label, 4 * label + 4);
    info.textContent = `As a ${page.data.classes[label]}, the box ${Controls.corners(from)} moves to ${Controls.corners(to)}.`;
    const overlaps = page.objects.map((object) => [object.name || "your box", ...[from, to].map((box) => Controls.figure(Engine.iou(Float64Array.from(object.box), 0, Float64Array.from(box), 0), 2))]);
    table.replaceChildren(Controls.table(["offset", "value", "what it does"], [
      ["dx", Controls.figure(moves[0], 3), "shift to the right, in widths"], ["dy", Controls.figure(moves[1], 3), "shift downwards, in heights"],
      ["dw", Controls.figure(moves[2], 3), `width × ${Controls.figure(Math.exp(moves[2]), 2)}`], ["dh", Controls.figure(moves[3], 3), `height × ${Controls.figure(Math.exp(moves[3]), 2)}`]]),
    ...(overlaps.length ? [Controls.table(["object", "IoU before", "IoU after"], overlaps)] : []));
  };
}

function suppressionStage(panel, page) {
  const { data } = page;
  let label = null, step = 0;
  const choice = el("div"), info = el("p", { class: "readout", "aria-live": "polite" }), slot = el("div"), list = el("div");
  const kind = Controls.choice("Rule", [["soft", "soft: lower the scores"], ["hard", "hard: drop boxes"]], page.chosen.softSigma ? "soft" : "hard", (value) => {
    page.set({ softSigma: value === "soft" ? data.settings.suppression.soft_sigma || 0.5 : 0, minScores: null, minScore: page.lowest() });
  });
  const iou = Controls.slider("Largest IoU with a better box (hard)", { min: 0, max: 1, step: 0.01, value: page.chosen.maxIou, show: (v) => v.toFixed(2), change: (value) => page.set({ maxIou: value }) });
  const sigma = Controls.slider("Sigma (soft)", { min: 0.05, max: 1, step: 0.01, value: page.chosen.softSigma || 0.5, show: (v) => v.toFixed(2), change: (value) => page.chosen.softSigma && page.set({ softSigma: value }) });
  const lowest = Controls.slider("Lowest score that takes part", { min: 0.001, max: 0.9, step: 0.001, value: page.lowest(), show: (v) => v.toFixed(3), change: (value) => page.set({ minScores: null, minScore: value }) });
  let slider = null;
  const go = (to, most) => { step = Math.min(Math.max(to, 0), most); page.render(); };
  panel.append(choice, slot, info, list, el("details", {}, el("summary", {}, "Change the rule"), kind, iou, sigma, lowest,
    Controls.button("Settings of the run", () => page.reset())));
  return () => {
    const { playback } = page.result;
    iou.hidden = Boolean(page.chosen.softSigma);
    sigma.hidden = !page.chosen.softSigma;
    if (!playback.length) {
      choice.replaceChildren();
      slot.replaceChildren();
      list.replaceChildren();
      info.textContent = "No box has a score above the lowest one.";
      return;
    }
    const best = [...playback].sort((a, b) => Math.max(...b.scores) - Math.max(...a.scores));
    const own = playback.find((one) => one.label === label) || best[0];
    label = own.label;
    choice.replaceChildren(Controls.choice("Class", best.map((one) => [one.label, `${data.classes[one.label]}: ${Controls.counted(one.result.steps.length, "winner")} of ${Controls.counted(one.scores.filter((score) => score > page.lowest() * (1 - 1e-6)).length, "box", "boxes")}`]), label, (value) => { label = Number(value); step = 0; page.render(); }));
    const steps = own.result.steps, most = steps.length - 1;
    step = Math.min(step, most);
    if (!slider || slider.most !== most) {
      slider = Controls.slider("Winner", { min: 0, max: Math.max(most, 0), step: 1, value: step, show: (v) => `${v + 1} of ${most + 1}`, change: (value) => go(value, most) });
      slider.most = most;
      slot.replaceChildren(slider, el("p", { class: "buttons" }, Controls.button("One back", () => go(step - 1, most)), Controls.button("One further", () => go(step + 1, most)),
        page.player(() => (step < most ? (go(step + 1, most), true) : false))));
    }
    slider.set(step);
    const box = (at) => [...own.boxes.subarray(4 * at, 4 * at + 4)];
    const { winner, score = own.scores[winner], dropped, lowered } = steps[step];
    steps.slice(0, step).forEach((one) => page.picture.box(box(one.winner), "kept", { opacity: 0.5 }));
    const changes = (dropped || lowered).slice().sort((a, b) => b.iou - a.iou);
    changes.slice(0, 60).forEach((one) => page.picture.box(box(one.position), "dropped", { title: `IoU ${Controls.figure(one.iou, 2)}`, opacity: 0.6 }));
    page.picture.box(box(winner), "chosen", { label: `${data.classes[label]} ${Controls.figure(score, 2)}` });
    info.textContent = changes.length
      ? `Winner ${step + 1}: score ${Controls.figure(score)}. It ${dropped ? "drops" : "lowers"} ${Controls.counted(changes.length, "box", "boxes")} of its class.`
      : `Winner ${step + 1}: score ${Controls.figure(score)}. No other box of its class that is left ${dropped ? "overlaps it too much" : "overlaps it"}.`;
    list.replaceChildren(changes.length ? Controls.table(["box", "IoU", dropped ? "score, dropped" : "score now"], changes.slice(0, 12).map((one) => [
      `region ${page.result.all[one.position] + 1}`, Controls.figure(one.iou, 2), Controls.figure(dropped ? own.scores[one.position] : one.to)])) : "");
  };
}

function resultStage(panel, page) {
  const { data } = page;
  let threshold = data.minScores ? null : page.chosen.minScore;
  const info = el("p", { class: "readout", "aria-live": "polite" }), table = el("div"), plot = el("div");
  const slider = Controls.slider("Lowest score that is shown", { min: 0.001, max: 1, step: 0.001, value: threshold || 0.5, show: (v) => v.toFixed(3), change: (value) => { threshold = value; page.render(); } });
  panel.append(slider, data.minScores ? Controls.button("Each class from its own threshold", () => { threshold = null; page.render(); }) : "", info, table, plot);
  return () => {
    const all = page.ranked();
    const shown = all.filter((one) => one.score >= (threshold === null ? data.minScores[one.label] : threshold));
    const counted = page.objects.filter((object) => !object.ignored && object.label >= 0);
    const judged = page.judge(all);
    shown.forEach((one) => page.picture.box(one.box, counted.length ? (judged.get(one) ? "hit" : "false") : "hit", { label: `${data.classes[one.label]} ${Controls.figure(one.score, 2)}`, title: "Why?", press: () => page.ask({ detection: one }) }));
    page.objects.forEach((object) => page.picture.box(object.box, "truth", { title: `Why? ${object.name}`, press: () => page.ask({ object }) }));
    table.replaceChildren(Controls.table(["detection", "score", "box, px", ...(counted.length ? ["right?"] : [])], shown.slice(0, 30).map((one) => [
      Controls.button(data.classes[one.label], () => page.ask({ detection: one }), { class: "link" }), Controls.figure(one.score), Controls.corners(one.box),
      ...(counted.length ? [judged.get(one) ? "yes" : "no"] : [])]), "Detections, best first"));
    const words = threshold === null ? "each class from its own threshold" : `scores from ${Controls.figure(threshold)}`;
    if (!counted.length) {
      info.textContent = `${Controls.counted(shown.length, "detection")} with ${words}. Without true boxes there is no precision and no recall; draw a box under “Why?” to ask about an object.`;
      plot.replaceChildren();
      return;
    }
    const hits = shown.filter((one) => judged.get(one)).length;
    info.textContent = `With ${words}: ${hits} of ${counted.length} objects found, ${shown.length - hits} detections wrong. Precision ${shown.length ? Controls.figure(hits / shown.length, 2) : "–"}, recall ${Controls.figure(hits / counted.length, 2)}.`;
    const points = [];
    let found = 0;
    all.forEach((one, at) => { found += judged.get(one) ? 1 : 0; points.push([found / counted.length, found / (at + 1)]); });
    const ap = Engine.averagePrecision(all.map((one) => (judged.get(one) ? 1 : 0)), counted.length);
    plot.replaceChildren(Controls.curve([{ name: "this image, all classes", points }], { x: "recall", y: "Precision over recall" }),
      el("p", {}, `The area under it, with its envelope, is ${Controls.figure(ap)}. Mean average precision takes this area for each class over all images of a data set, and then the mean over the classes.`));
  };
}

function whyStage(panel, page) {
  const { data, trace } = page;
  const answer = el("div", { class: "answer", "aria-live": "polite" }), fields = ["left", "top", "right", "bottom"].map((name) => el("input", { type: "number", "aria-label": `${name} edge, pixels`, min: 0 }));
  let label = 0;
  const choose = el("div");
  const list = el("div");
  panel.append(el("p", {}, "Click a detection or an object on the picture, or draw a box around something."), list,
    el("details", {}, el("summary", {}, "By keyboard: type a box"), el("p", { class: "fields" }, ...fields, Controls.button("Ask", () => {
      const box = fields.map((field) => Number(field.value));
      if (box[2] > box[0] && box[3] > box[1]) page.addObject(box);
    }))), choose, answer);
  return () => {
    page.picture.drawn = (box) => page.addObject(box);
    const ranked = page.ranked().filter((one) => page.isShown(one));
    ranked.forEach((one) => page.picture.box(one.box, "hit", { label: data.classes[one.label], title: `Why this ${data.classes[one.label]}?`, press: () => page.ask({ detection: one }) }));
    page.objects.forEach((object) => page.picture.box(object.box, "truth", { label: object.name || "your box", title: `Why? ${object.name || "your box"}`, press: () => page.ask({ object }) }));
    list.replaceChildren(el("p", { class: "buttons" }, ...ranked.slice(0, 12).map((one) => Controls.button(`${data.classes[one.label]} ${Controls.figure(one.score, 2)}`, () => page.ask({ detection: one }))),
      ...page.objects.slice(0, 12).map((object) => Controls.button(`object: ${object.name || "your box"}`, () => page.ask({ object })))));
    const { asked } = page;
    choose.replaceChildren();
    if (!asked) { answer.replaceChildren(); return; }
    if (asked.detection) { answer.replaceChildren(...explainDetection(page, asked.detection)); return; }
    label = asked.object.label >= 0 ? asked.object.label : page.guess(asked.object);
    choose.replaceChildren(Controls.choice("Asked as", data.classes.map((name, at) => [at, name]), label, (value) => { asked.object.label = Number(value); page.render(); }));
    page.picture.box(asked.object.box, "drawn", {});
    answer.replaceChildren(...explainObject(page, asked.object, label));
    const fate = State.fate(trace, page.result, page.chosen, asked.object.box, label);
    page.picture.box(trace.boxes.subarray(4 * fate.best, 4 * fate.best + 4), "window", { label: `IoU ${Controls.figure(fate.bestIou, 2)}` });
  };
}

function explainDetection(page, one) {
  const { data, trace, result, chosen } = page;
  const own = result.playback.find((each) => each.label === one.label);
  const steps = own.result.steps, place = steps.findIndex((step) => result.all[step.winner] === one.row);
  const looks = trace.deep[one.row].map((each) => [data.members[each.look.member].name + (each.look.mirrored ? ", mirrored" : ""), State.mean(trace, [each]).probabilities[one.label + 1]]);
  const changed = place >= 0 ? steps[place].dropped || steps[place].lowered : [];
  page.picture.box(one.box, "chosen", { label: data.classes[one.label] });
  page.picture.box(trace.boxes.subarray(4 * one.row, 4 * one.row + 4), "window", {});
  return [el("h3", {}, `Why ${data.classes[one.label]} ${Controls.figure(one.score, 2)}?`),
    el("p", {}, one.row < trace.count ? `It comes from proposal ${one.row + 1}.` : "It comes from a region of the second pass, a proposal that was moved and scored again."),
    Controls.bars(looks.map(([name, value]) => [name, value, Controls.figure(value)])),
    el("p", {}, `The mean is ${Controls.figure(one.before)}${chosen.softSigma && one.score < one.before - 1e-9 ? `, and better boxes of its class around it lowered it to ${Controls.figure(one.score)}` : ""}. ${changed.length ? `It ${chosen.softSigma ? "lowered" : "dropped"} ${changed.length} other boxes of its class.` : "It overlaps no other box of its class that was left."}`)];
}

function explainObject(page, object, label) {
  const { data, trace, result, chosen } = page;
  const fate = State.fate(trace, result, chosen, object.box, label), name = data.classes[label];
  const say = {
    found: () => `Found: a detection of ${name} with score ${Controls.figure(fate.hit.score)} covers it.`,
    "never proposed": () => `Never proposed: no box overlaps it by an IoU of 0.5 or more; the best reaches ${Controls.figure(fate.bestIou, 2)}. No classifier can find what is not proposed.`,
    misclassified: () => `Misclassified: ${fate.covering.length} boxes cover it, and in none of them ${name} is the most probable class.`,
    "below the score": () => `Below the score: ${fate.classified.length} boxes show a ${name}, and the best has ${Controls.figure(Math.max(...fate.classified.map(({ row }) => result.probability(row, label))))}; it is shown from ${Controls.figure(fate.wanted)}.`,
    "suppressed by NMS": () => `Suppressed by NMS: ${fate.above.length} boxes show it with a high enough score, and a better box of ${name} beside it took their place.`,
  };
  const rows = [...fate.covering].sort((a, b) => b.iou - a.iou).slice(0, 6);
  if (!rows.length) rows.push({ row: fate.best, iou: fate.bestIou });
  const state = (row) => (row >= trace.count ? "second pass" : !result.scores.has(row) ? (result.isCopy.has(row) ? "near-copy" : "rejected") : !trace.cascade || result.isScored.has(row) ? "by all members" : "by the first");
  return [el("h3", {}, `Why ${fate.stage === "found" ? "" : "not "}${name}?`), el("p", { class: "verdict" }, say[fate.stage]()),
    Controls.table(["proposal", "IoU", `${name}`, "best class", "scored"], rows.map(({ row, iou }) => {
      const scores = result.scores.get(row);
      const best = scores ? scores.probabilities.reduce((top, value, at, all) => (value > all[top] ? at : top), 0) : 0;
      return [`${row + 1}`, Controls.figure(iou, 2), scores ? Controls.figure(scores.probabilities[label + 1]) : "–", scores ? (best ? data.classes[best - 1] : "background") : "–", state(row)];
    }), "Boxes nearest to it")];
}
