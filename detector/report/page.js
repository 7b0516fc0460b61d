"use strict";
// Two helpers of a page that is complete without them: a filter of the pictures, and a slider of the score.
(() => {
  const gallery = document.getElementById("gallery");
  const figures = gallery ? [...gallery.children] : [];
  const filter = document.getElementById("filter");
  const tagsOf = (element) => (element.dataset.tags || "").split(" ");

  // Show the pictures with a tag that passes; in each, frames whose tags do not pass recede before those that do.
  const show = (passes, what) => {
    const has = (element) => tagsOf(element).some(passes);
    let count = 0;
    for (const figure of figures) {
      const frames = [...figure.querySelectorAll("[data-tags]")];
      const marks = passes !== null && frames.some(has);
      figure.hidden = passes !== null && !has(figure);
      frames.forEach((frame) => frame.classList.toggle("dim", marks && !has(frame)));
      count += figure.hidden ? 0 : 1;
    }
    document.getElementById("filter-status").textContent =
      passes ? `${count} of ${figures.length} pictures: ${what}` : `All ${figures.length} pictures`;
    document.getElementById("filter-all").hidden = !passes;
  };

  if (figures.length && filter) {
    const kind = document.getElementById("filter-kind");
    const label = document.getElementById("filter-class");
    filter.hidden = false;

    const chosen = () => {
      if (!kind.value && !label.value) return show(null, "");
      const passes = (tag) => {
        const [group, number] = tag.split("-");
        const right = kind.value ? group === kind.value : ["found", "false", "missed"].includes(group);
        return right && (!label.value || number === label.value);
      };
      const words = [kind, label].filter((one) => one.value).map((one) => one.selectedOptions[0].text);
      show(passes, words.join(", "));
    };
    kind.addEventListener("change", chosen);
    label.addEventListener("change", chosen);

    // #show=TAG in the address: links of numbers work with the browser's way back.
    const follow = () => {
      const match = /^#show=([\w-]+)$/.exec(location.hash);
      if (!match) return;
      kind.value = label.value = "";
      const link = document.querySelector('a[data-show="' + match[1] + '"]');
      show((tag) => tag === match[1], link ? link.title : match[1]);
      document.getElementById("images").scrollIntoView();
      document.getElementById("filter-status").focus({ preventScroll: true });
    };
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[data-show]");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      const hash = "#show=" + link.dataset.show;
      if (location.hash === hash) follow();
      else location.hash = hash;
    });
    document.getElementById("filter-all").addEventListener("click", () => {
      kind.value = label.value = "";
      show(null, "");
      document.getElementById("filter-status").focus();
    });
    // A link to a single picture shows it even where the filter hides it.
    const single = () => {
      const target = /^#image-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
      if (target && target.hidden) {
        kind.value = label.value = "";
        show(null, "");
        target.scrollIntoView();
      }
    };
    window.addEventListener("hashchange", follow);
    window.addEventListener("hashchange", single);
    show(null, "");
    follow();
  }

  const slider = document.getElementById("score-slider");
  if (slider) {
    const data = JSON.parse(document.getElementById("score-data").textContent);
    const output = document.getElementById("score-output");
    document.getElementById("score-control").hidden = false;
    const written = (share) => (share === null ? "–" : share.toFixed(3));
    const move = () => {
      const step = Number(slider.value);
      output.textContent = data.scores[step].toFixed(2);
      slider.setAttribute("aria-valuetext", "score " + output.textContent);
      data.rows.forEach((row, place) => {
        const [shown, found] = [row.shown[step], row.found[step]];
        const cells = document.getElementById("at-" + place).cells;
        const values = [shown ? found / shown : null, found / row.objects, (2 * found) / (shown + row.objects)];
        values.forEach((value, column) => (cells[column + 1].textContent = written(value)));
        cells[4].textContent = shown.toLocaleString("en");
      });
    };
    slider.addEventListener("input", move);
    move();
  }
})();
