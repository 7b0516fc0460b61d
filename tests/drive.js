// Moves every control of the page, stage by stage, and writes into it what happened; test_trace_page.py runs it.
(async () => {
  const done = { stages: [], moved: 0, pressed: 0, drawn: 0, keys: {}, errors: window.errors, texts: {} };
  const wait = () => new Promise((next) => setTimeout(next, 30));
  const every = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  async function move(control) {
    const fire = (kind) => control.dispatchEvent(new Event(kind, { bubbles: true }));
    if (control.tagName === "BUTTON") control.click();
    else if (control.tagName === "SELECT") {
      for (const option of [...control.options].slice(0, 4)) {
        control.value = option.value;
        fire("change");
        await wait();
        if (!control.isConnected) break;
      }
    } else if (control.type === "range") {
      for (const value of [control.min, control.max, (Number(control.min) + Number(control.max)) / 2]) {
        control.value = value;
        fire("input");
        await wait();
      }
    } else if (control.type === "checkbox") {
      control.click();
      await wait();
      control.click();
    } else if (control.type === "number") {
      control.value = 5 + 20 * done.moved;
      fire("input");
    }
    done.moved++;
    await wait();
  }

  /** Click what can be clicked on the picture, a place of it, and draw a box. */
  async function touch() {
    const svg = document.querySelector("#picture svg"),
      frame = svg.getBoundingClientRect();
    const at = (x, y) => ({
      bubbles: true,
      clientX: frame.left + x * frame.width,
      clientY: frame.top + y * frame.height,
    });
    const box = svg.querySelector(".press");
    if (box) {
      box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
      done.pressed++;
      await wait();
      if (location.hash !== here) {
        location.hash = here;
        await wait();
      }
    }
    svg.dispatchEvent(new PointerEvent("pointermove", at(0.4, 0.4)));
    svg.dispatchEvent(new MouseEvent("click", at(0.4, 0.4)));
    await wait();
    const objects = page.objects.length,
      start = svg.querySelector(".press") || svg; // a box is drawn within others too
    start.dispatchEvent(new PointerEvent("pointerdown", at(0.2, 0.2)));
    svg.dispatchEvent(new PointerEvent("pointermove", at(0.5, 0.5)));
    window.dispatchEvent(new PointerEvent("pointerup", at(0.6, 0.7)));
    await wait();
    done.drawn += page.objects.length - objects;
  }

  let here = "";
  for (const link of every("#stages a")) {
    link.click();
    await wait();
    const section = document.querySelector(".stage:not([hidden])");
    done.stages.push(section.id);
    done.texts[section.id] = section.innerText;
    done.keys[section.id] = document.getElementById("key").childElementCount;
    here = location.hash;
    await touch();
    every("details", section).forEach((one) => {
      one.open = true;
    });
    const seen = new Set();
    for (let round = 0; round < 60; round++) {
      const all = every("input, select, button", section).filter((one) => !one.disabled);
      const key = (one) => [nameOfControl(one), one.textContent, one.type, one.dataset.row].join();
      const next = all.find((one) => !seen.has(key(one)));
      if (!next || section.hidden) break;
      seen.add(key(next));
      await move(next);
    }
    page.stop();
  }
  done.changes = document.getElementById("changes").innerText;
  every("#changes button").forEach((one) => one.click());
  done.isBack = document.getElementById("changes").hidden;
  location.hash = "regression";
  await wait();
  const select = document.querySelector("#stage-regression select");
  if (select && select.options.length > 1) {
    select.focus();
    select.value = select.options[1].value;
    select.dispatchEvent(new Event("change", { bubbles: true }));
    done.focus = [select.isConnected, document.activeElement.tagName];
  }
  location.hash = "votes";
  await wait();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  await wait();
  done.next = [location.hash, document.activeElement.id];
  const fetched = performance.getEntriesByType("resource").map((one) => one.name);
  done.fetched = fetched.filter((name) => !name.startsWith("data:"));
  const isSmall = (one) => one.offsetParent && one.offsetHeight < 24 && !one.classList.contains("link");
  done.small = every("button, select").filter(isSmall).length;
  done.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const isNamed = (one) =>
    (one.labels && one.labels.length) ||
    one.getAttribute("aria-label") ||
    one.textContent ||
    one.alt ||
    one.querySelector("img[alt]");
  done.nameless = every("input, select, button, canvas[role], img").filter((one) => !isNamed(one)).length;
  const report = document.createElement("pre");
  report.id = "driven";
  report.textContent = JSON.stringify(done);
  document.body.append(report);
})();
