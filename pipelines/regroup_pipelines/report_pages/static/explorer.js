/* The vote explorer: filters, the choice of a sample, its pictures and charts. */
"use strict";
(() => {
  const data = Report.read("explorer-data");
  const at = (id) => document.getElementById(id);
  const LISTED = 500;
  for (const e of data.evaluations) {
    for (const a of e.attacks) a.samples = a.samples.map((position) => data.ids[position]);
  }
  let matches = [];

  const evaluation = () => data.evaluations[at("f-evaluation").value] || data.evaluations[0];
  const attack = () => evaluation().attacks[at("f-attack").value] || evaluation().attacks[0];
  const className = (label) => (label < 0 ? "none" : evaluation().classes[label] ?? `class ${label}`);

  function node(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function options(select, pairs) {
    const kept = select.value;
    select.replaceChildren(...pairs.map(([value, text]) => {
      const option = node("option", text);
      option.value = value;
      return option;
    }));
    if (pairs.some(([value]) => String(value) === kept)) select.value = kept;
  }

  const shown = (a) => (a.ranks ? a.ranks.clean.true.length : 0);

  function row(a, i) {
    const found = { i, sample: a.samples[i] };
    for (const [name, values] of Object.entries(a.columns)) found[name] = values[i];
    return found;
  }

  function matching() {
    const a = attack(), found = [];
    const accepted = (wanted, right) => !wanted || (wanted === "right") === right;
    const limit = at("f-shown").checked ? shown(a) : a.samples.length;
    for (let i = 0; i < limit; i++) {
      const label = a.columns.label[i];
      if (at("f-class").value !== "" && label !== Number(at("f-class").value)) continue;
      if (!accepted(at("f-softmax").value, a.columns.attacked_softmax[i] === label)) continue;
      if (!accepted(at("f-regroup").value, a.columns.attacked_regroup[i] === label)) continue;
      found.push(i);
    }
    return found;
  }

  function refreshChoices() {
    options(at("f-attack"), evaluation().attacks.map((a, i) => [i, a.name]));
    const labels = [...new Set(attack().columns.label || [])].sort((a, b) => a - b);
    options(at("f-class"), [["", "every class"], ...labels.map((label) => [label, className(label)])]);
  }

  function refreshList(wanted) {
    const a = attack();
    matches = matching();
    const listed = matches.slice(0, LISTED);
    options(at("samples"), listed.map((i) => {
      const right = a.columns.attacked_regroup[i] === a.columns.label[i];
      return [i, `${right ? "✓" : "✗"} ${a.samples[i]} (${className(a.columns.label[i])})`];
    }));
    const more = matches.length > LISTED ? `; the first ${LISTED} are listed` : "";
    at("count").textContent = `${matches.length} of ${a.samples.length} samples match${more}.`;
    const index = wanted === undefined ? -1 : listed.findIndex((i) => a.samples[i] === wanted);
    if (listed.length) at("samples").selectedIndex = Math.max(index, 0);
    refreshSample();
  }

  function refreshSample() {
    const a = attack(), picked = at("samples").value;
    const none = picked === "";
    at("previous").disabled = none || at("samples").selectedIndex === 0;
    at("next").disabled = none || at("samples").selectedIndex === at("samples").options.length - 1;
    at("votes").hidden = true;
    at("no-votes").hidden = true;
    at("pictures").replaceChildren();
    at("sample-facts").replaceChildren();
    if (none) {
      at("sample-title").textContent = "No sample matches";
      at("verdict").textContent = "";
      return;
    }
    const s = row(a, Number(picked));
    at("sample-title").textContent = s.sample;
    showFacts(s);
    pictures(a, s);
    const ranked = s.i < shown(a);
    at("votes").hidden = !ranked;
    at("no-votes").hidden = ranked;
    if (ranked) charts(a, s);
    remember(a, s);
  }

  function showFacts(s) {
    const right = (label) => (label === s.label ? "right" : "wrong");
    at("verdict").textContent = `Attacked: softmax ${right(s.attacked_softmax)}, REGroup ${right(s.attacked_regroup)}.`;
    const facts = [
      ["true class", className(s.label)],
      ["class that the attack chose", className(s.adversarial)],
      ["softmax, clean to attacked", `${className(s.clean_softmax)} → ${className(s.attacked_softmax)}`],
      ["REGroup, clean to attacked", `${className(s.clean_regroup)} → ${className(s.attacked_regroup)}`],
      ["rank of the true class by REGroup", `${s.clean_rank} → ${s.attacked_rank}`],
      ["attack succeeded", s.success ? "yes" : "no"],
      ["perturbation, L2 and L-infinity", `${s.l2}, ${(255 * s.linf).toPrecision(3)}/255`],
    ];
    at("sample-facts").replaceChildren(...facts.map(([name, value]) => {
      const pair = node("div");
      pair.append(node("dt", name), node("dd", value));
      return pair;
    }));
  }

  function pictures(a, s) {
    const found = (data.pictures[a.name] || {})[s.sample];
    if (!found) return;
    const words = {
      clean: ["Clean image", `Clean image of sample ${s.sample}, class ${className(s.label)}`],
      attacked: ["Attacked image, rounded to 8 bits", `Image of sample ${s.sample} after ${a.name}`],
      difference: [`Difference × ${Number(found.gain).toPrecision(3)}, grey: no difference`, `What ${a.name} changed in sample ${s.sample}, amplified`],
    };
    for (const [kind, [caption, alt]] of Object.entries(words)) {
      const figure = node("figure");
      if (found.files[kind]) {
        const image = node("img");
        image.src = `pictures/${found.files[kind]}`;
        image.alt = alt;
        image.width = image.height = Math.max(found.side, data.smallest);
        if (found.side > 64) image.className = "smooth";
        figure.append(image, node("figcaption", caption));
      } else {
        const reason = found.problems[kind] || "both images are needed";
        figure.append(node("figcaption", `${caption.split(" ×")[0]}: not shown, ${reason}`));
      }
      at("pictures").append(figure);
    }
  }

  const LINES = [
    ["true", "clean", "true class, clean"], ["true", "attacked", "true class, attacked"],
    ["other", "clean", "attack's class, clean"], ["other", "attacked", "attack's class, attacked"],
  ];

  function series(values, start) {
    return LINES.map(([which, when, name]) => {
      const y = values(which, when);
      return { role: `${which}-${when}`, name, x: y.map((_, i) => i + start), y };
    }).filter((each) => each.y.every((value) => value !== null));
  }

  function charts(a, s) {
    const e = evaluation(), taps = e.taps.length, M = Math.max(e.classes.length, 2);
    const names = Object.fromEntries(e.taps.map((tap, i) => [i + 1, tap]));
    const rank = (which, when, sign) => a.ranks[when][which][s.i].map((each) => each[sign] || null);
    const vote = { x: taps - e.k + 0.5, text: `the last ${e.k} vote` };
    ["positive", "negative"].forEach((sign, number) => {
      drawn({
        key: `ranks-${sign}`, x: "tap, first to last", y: "rank", names, lines: [vote],
        yaxis: { type: M > 20 ? "log" : "linear", autorange: false, range: M > 20 ? [Math.log10(M * 1.1), Math.log10(0.9)] : [M + 0.5, 0.5] },
        series: series((which, when) => rank(which, when, number), 1),
      }, `Rank of the true class and of the attack's class by every ${sign} voter of ${s.sample}`);
    });
    const points = (which, when) => {
      const none = a.ranks[when][which][s.i][0][0] === 0;
      return a.ranks[when][`${which}_points`][s.i].map((value) => (none ? null : value));
    };
    at("points-title").textContent = `${e.rule.chart} as k grows`;
    at("points-note").textContent = e.rule.note;
    for (const each of document.querySelectorAll("[data-of=points] .hidden")) each.textContent = ` of ${e.rule.chart}`;
    drawn({
      key: "points", x: "k (last taps that vote)", y: `${e.rule.chart}, %`, series: series(points, 1),
      lines: [{ x: e.k, text: `k = ${e.k}` }],
    }, `${e.rule.chart} of the true class and of the attack's class as k grows, sample ${s.sample}`);
    at("winners-title").textContent = `The winner by the votes' rule, ${e.rule.name}, as k grows`;
    at("winners-note").textContent = `Of the stored votes. ✓ the true class, ✗ the class that the attack chose, · another. The k of the tables is marked. Ties: ${e.rule.ties}.`;
    winners(a, s, e);
    rankTable(a, s, e);
  }

  function drawn(spec, label) {
    at(spec.key).setAttribute("aria-label", `${label}; the tables below hold the numbers.`);
    Report.draw(spec);
  }

  function heads(table, texts) {
    const line = node("tr");
    for (const text of texts) {
      const head = node("th", text);
      head.scope = "col";
      line.append(head);
    }
    const part = node("thead");
    part.append(line);
    table.replaceChildren(part);
    return table.appendChild(node("tbody"));
  }

  function headed(text) {
    const line = node("tr"), head = node("th", text);
    head.scope = "row";
    line.append(head);
    return line;
  }

  function winners(a, s, e) {
    const body = heads(at("winners"), ["images", ...e.taps.map((_, i) => `k = ${i + 1}`)]);
    for (const when of ["clean", "attacked"]) {
      const line = headed(when);
      a.ranks[when].winners[s.i].forEach((label, i) => {
        const kind = label === s.label ? "true" : label === s.adversarial ? "adversarial" : "other";
        const sign = { true: "✓", adversarial: "✗", other: "·" }[kind];
        line.append(node("td", `${sign} ${className(label)}`, kind + (i + 1 === e.k ? " chosen" : "")));
      });
      body.append(line);
    }
  }

  function rankTable(a, s, e) {
    const body = heads(at("ranks"), ["tap", "sign", ...LINES.map((each) => each[2])]);
    e.taps.forEach((tap, t) => ["positive", "negative"].forEach((sign, number) => {
      const line = headed(tap);
      line.append(node("td", sign));
      for (const [which, when] of LINES) line.append(node("td", a.ranks[when][which][s.i][t][number] || "-"));
      body.append(line);
    }));
  }

  // The choice is kept in the address, so that it can be linked to.
  function remember(a, s) {
    const words = new URLSearchParams({ evaluation: evaluation().key, attack: a.name, sample: s.sample });
    history.replaceState(null, "", "#" + words);
  }

  function recall() {
    const words = new URLSearchParams(location.hash.slice(1));
    const indexOf = (list, key, value) => Math.max(list.findIndex((each) => each[key] === value), 0);
    at("f-evaluation").value = indexOf(data.evaluations, "key", words.get("evaluation"));
    refreshChoices();
    at("f-attack").value = indexOf(evaluation().attacks, "name", words.get("attack"));
    refreshChoices();
    const wanted = words.get("sample"), index = attack().samples.indexOf(wanted);
    if (index >= shown(attack())) at("f-shown").checked = false;
    refreshList(wanted ?? undefined);
  }

  function move(step) {
    at("samples").selectedIndex += step;
    refreshSample();
  }

  function saveList() {
    const a = attack(), names = Object.keys(a.columns);
    const rows = matches.map((i) => [a.samples[i], ...names.map((name) => a.columns[name][i])]);
    Report.save(`${evaluation().key}-${a.name}-samples.csv`, Report.csv([["sample_id", ...names], ...rows]), "text/csv");
  }

  options(at("f-evaluation"), data.evaluations.map((e, i) => [i, e.title]));
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("f-evaluation").addEventListener("change", () => { refreshChoices(); refreshList(); });
  at("f-attack").addEventListener("change", () => { refreshChoices(); refreshList(); });
  for (const id of ["f-class", "f-softmax", "f-regroup", "f-shown"]) at(id).addEventListener("change", () => refreshList());
  at("samples").addEventListener("change", refreshSample);
  at("previous").addEventListener("click", () => move(-1));
  at("next").addEventListener("click", () => move(1));
  at("save-list").addEventListener("click", saveList);
  addEventListener("hashchange", recall);
  recall();
})();
