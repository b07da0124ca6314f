"use strict";
// What the page does by itself: sort, filter, and unfold a workload. Everything from the cluster is set as text.
(() => {
  const audit = JSON.parse(document.getElementById("data").textContent);
  const element = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // === tables ===

  // The most rows of a table that stand in the page: with thousands, it stays quick.
  const MOST = 100;
  const order = new Intl.Collator("en", { numeric: true });

  // A table's rows: all of them are kept here, in the order that they are sorted in, and a screenful of those
  // that fit stands in the page.
  class Rows {
    constructor(table) {
      this.body = table.tBodies[0];
      this.all = Array.from(this.body.rows);
      this.fitting = this.all;
      this.from = 0;
      this.pager = table.closest("section").querySelector(".pager");
      const [previous, next] = this.pager.querySelectorAll("button");
      previous.addEventListener("click", () => this.turn(-MOST));
      next.addEventListener("click", () => this.turn(MOST));
      for (const header of table.tHead.querySelectorAll("th:has(> button)")) {
        header.firstElementChild.addEventListener("click", () => this.sort(header));
      }
      // On paper there is nothing to turn.
      addEventListener("beforeprint", () => this.show(0, Infinity));
      addEventListener("afterprint", () => this.show());
      this.show();
    }

    turn(by) {
      this.from += by;
      this.show();
    }

    filter(fits) {
      this.fits = fits;
      this.from = 0;
      this.show();
    }

    sort(header) {
      const descending = header.getAttribute("aria-sort") === "ascending";
      for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const column = header.cellIndex;
      const key = ({ cells }) => cells[column].dataset.sort ?? cells[column].textContent;
      const keys = new Map(this.all.map((row) => [row, key(row)]));
      const sign = descending ? -1 : 1;
      this.all.sort((a, b) => sign * order.compare(keys.get(a), keys.get(b)));
      this.from = 0;
      this.show();
    }

    show(from = this.from, most = MOST) {
      if (this.fits) this.fitting = this.all.filter(this.fits);
      const shown = this.fitting.slice(from, from + most);
      // What a row has unfolded to stays under it.
      this.body.replaceChildren(...shown.flatMap((row) => (row.unfolded ? [row, row.unfolded] : [row])));
      const [previous, next] = this.pager.querySelectorAll("button");
      previous.disabled = from === 0;
      next.disabled = from + most >= this.fitting.length;
      this.pager.hidden = previous.disabled && next.disabled;
      this.pager.querySelector("span").textContent = `${from + 1}\u2013${from + shown.length} of ${this.fitting.length}`;
    }
  }

  for (const table of document.querySelectorAll("table:not(#list)")) new Rows(table);
  const list = new Rows(document.getElementById("list"));

  // === filtering ===

  const form = document.getElementById("filter");
  const shown = document.getElementById("shown");

  const filter = () => {
    const wanted = new FormData(form);
    const words = wanted.get("text").toLowerCase().split(/\s+/);
    list.filter((row) => {
      const workload = audit.workloads[row.dataset.at];
      const text = `${workload.namespace} ${workload.kind} ${workload.name}`.toLowerCase();
      return (
        words.every((word) => text.includes(word)) &&
        ["", workload.namespace].includes(wanted.get("namespace")) &&
        ["", workload.levelToday].includes(wanted.get("level")) &&
        (!wanted.has("missing") || workload.missing.length > 0) &&
        (!wanted.has("risk") || workload.risks.length > 0)
      );
    });
    shown.textContent = `${list.fitting.length} of ${list.all.length}`;
  };

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  // The fields are reset after this event.
  form.addEventListener("reset", () => setTimeout(filter));

  // === a workload's details ===

  const pods = (found, workload) =>
    found.pods < workload.pods ? ` (${found.pods} of ${workload.pods} pods)` : "";

  const part = (title, items, line) =>
    items.length === 0 ? [] : [element("h3", {}, title), element("ul", {}, ...items.map((item) => element("li", {}, ...line(item))))];

  // `spec.containers[app].securityContext.procMount`, part by part; a container's name may hold dots.
  const steps = (path) => {
    const container = /^(spec)\.(\w+)\[([^\]]*)\]\.(.*)$/.exec(path);
    if (!container) return path.split(".");
    const [, spec, kind, name, rest] = container;
    return [spec, kind, { name }, ...rest.split(".")];
  };

  // What would be added, as the manifest's own YAML.
  const diff = (fills) => {
    const tree = new Map();
    for (const fill of fills) {
      let at = tree;
      const path = steps(fill.path);
      const last = path.pop();
      for (const step of path) {
        const name = typeof step === "string" ? step : `- name: ${step.name}`;
        if (!at.has(name)) at.set(name, new Map());
        at = at.get(name);
      }
      // Several policies may each add items to one list.
      const before = at.get(last) ?? [];
      at.set(last, Array.isArray(fill.value) ? before.concat(fill.value) : fill.value);
    }
    const pre = element("pre", {});
    const add = (line) => pre.append(element("span", { class: "added" }, `+ ${line}`), "\n");
    const write = (level, indent) => {
      for (const [name, value] of level) {
        if (value instanceof Map) {
          const item = name.startsWith("- ");
          pre.append(`  ${indent}${item ? name : `${name}:`}\n`);
          write(value, `${indent}  `);
        } else if (name === "writablePaths") {
          add(`${indent}volumeMounts:`);
          for (const path of value) add(`${indent}- mountPath: ${path} # an emptyDir of its own`);
        } else {
          add(`${indent}${name}: ${JSON.stringify(value)}`);
        }
      }
    };
    write(tree, "");
    return pre;
  };

  const details = (workload) => {
    const cell = element("td", { colspan: "8" });
    const source = workload.pods === 0 ? "template" : "pod";
    cell.append(
      element("p", { class: "soft" }, `Looked at ${source} ${workload.example}, from ${workload.source}. Policies: ${workload.policies.join(", ") || "none"}.${workload.ownerByName ? " The owner is told by its name." : ""}`),
    );
    if (workload.missing.length > 0) {
      cell.append(element("h3", {}, "What its pods would have"), diff(workload.missing));
    }
    cell.append(
      ...part("Missing", workload.missing, (found) => [
        element("code", {}, found.path), ` by ${found.policy}: ${reason(found.reason)}${pods(found, workload)}`,
      ]),
      ...part("Policies in mode Audit would fill in", workload.audited, (found) => [
        element("code", {}, found.path), `: ${JSON.stringify(found.value)}, by ${found.policy}${pods(found, workload)}`,
      ]),
      ...part("Held back by guards", workload.withheld, (found) => [
        element("code", {}, found.path), ` of ${found.policy}: ${found.reason} (${found.guard})${pods(found, workload)}`,
      ]),
      ...part(`In the way of ${workload.nextLevel}`, workload.obstacles, (found) => [
        element("code", {}, found.path), ` is ${JSON.stringify(found.value)}, must be ${found.allowed}${pods(found, workload)}`,
      ]),
      ...part("Risks", workload.risks, (found) => [
        `${found.text} `, element("code", {}, found.path), `: ${found.evidence} (${found.id})${pods(found, workload)}`,
      ]),
    );
    if (cell.childElementCount === 1) cell.append(element("p", {}, "Nothing is missing, nothing held back, nothing in the way."));
    return element("tr", { class: "details" }, cell);
  };

  const reasons = JSON.parse(document.getElementById("reasons").textContent);
  const reason = (name) => reasons[name] ?? name;

  list.body.addEventListener("click", (event) => {
    const button = event.target.closest(".unfold");
    if (!button) return;
    const row = button.closest("tr");
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) {
      row.unfolded.remove();
      row.unfolded = null;
    } else {
      row.unfolded = details(audit.workloads[row.dataset.at]);
      row.after(row.unfolded);
    }
  });

  filter();
})();
