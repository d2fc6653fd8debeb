// Asks the gateway every two seconds, one question after the other, and writes the answers into the page.
// What comes from the queue is never read as HTML: it goes through textContent, and code that stands in the
// page would not run (see the policy in __init__.py). Addresses are relative to the page's own.

const INTERVAL = 2; // seconds between two refreshes; doubles with each that fails
const LONGEST_PAUSE = 30; // seconds
const PATIENCE = 10; // seconds that an answer may take
const KEPT = 300; // seconds that the charts show
const WINDOW = 10; // seconds that rates and percentiles are of
const LISTED = 50; // tasks in a list
const SEARCHED = 200; // tasks in which a part of an id is looked for
const EVENTS = 8;
const SHOWN = 20_000; // characters of a payload
const FILTERS = ["status-filter", "type-filter", "id-filter"];
const DECISIONS = { retry: "POST", discard: "DELETE" };

const $ = (id) => document.getElementById(id);
const state = {
  paused: false,
  failures: 0, // refreshes in a row
  heard: null, // Date of the last refresh that succeeded
  workers: null, // id -> worker, as last seen
  opened: null, // id of the task in the dialog
  samples: [], // {at, …} for the charts
  events: [],
  counts: {},
  types: [],
  lost: "", // what does not answer
};

// ---------------------------------------------------------------- asking

/** The gateway, or something on the way to it, does not answer. */
class Away extends Error {}

/** Sends a request and returns the JSON of its answer; the error of a refused one has the gateway's sentence. */
async function ask(path, { method = "GET", parse = JSON.parse } = {}) {
  let response, answer;
  try {
    response = await fetch(path, { method, cache: "no-store", signal: AbortSignal.timeout(PATIENCE * 1000) });
    answer = parse(await response.text());
  } catch {
    throw new Away("The gateway does not answer"); // no connection, or a proxy that says so in its own words
  }
  if (response.ok) return answer;
  const { status } = response;
  if (status === 401) location.reload(); // the login is over: there is a page to log in again
  throw Object.assign(new Error(answer?.error ?? `The gateway answered ${status}`), { status });
}

/** JSON with its numbers as they were written: 12345678901234567890 and 1.0 are not numbers of JavaScript. */
function parseExactly(json) {
  return JSON.parse(json, (_, value, context) =>
    typeof value === "number" && context && JSON.rawJSON && String(value) !== context.source
      ? JSON.rawJSON(context.source)
      : value,
  );
}

let timer, running, again;

/** Refreshes now, or once more after the refresh that is under way, and plans the next one if somebody looks. */
async function poll() {
  clearTimeout(timer);
  again = true;
  if (running) return;
  running = true;
  $("main").ariaBusy = "true"; // a screen reader waits until all of it is new
  while (again) {
    again = false;
    await refresh();
  }
  running = false;
  $("main").ariaBusy = "false";
  if (!state.paused && !document.hidden) timer = setTimeout(poll, pause() * 1000);
}

const pause = () => Math.min(INTERVAL * 2 ** Math.max(state.failures - 1, 0), LONGEST_PAUSE);

async function refresh() {
  try {
    const health = await ask("health");
    const { workers } = await ask("workers"); // before the figures, whose clock tells how old the beats are
    const stats = await ask(`stats?window=${WINDOW}`);
    showFigures(stats);
    showWorkers(workers, stats);
    showTasks(await listTasks());
    showDead(stats.counts.dead_letter ? (await ask(`tasks?status=failed&limit=${LISTED}`)).tasks : []);
    if (state.opened) await showDetail();
    showHealth(health);
  } catch (error) {
    showFailure(error);
  }
}

async function listTasks() {
  const [status, type, id] = FILTERS.map((name) => $(name).value.trim());
  const ids = id.split(",").map((part) => part.trim()).filter(Boolean).slice(0, LISTED);
  const fits = (task) => (!status || task.status === status) && (!type || task.type === type);
  if (ids.length) {
    const found = (await ask(`tasks?${new URLSearchParams({ ids })}`)).tasks;
    if (found.length) return found.filter(fits);
  }
  const query = new URLSearchParams({ limit: ids.length ? SEARCHED : LISTED });
  if (status) query.set("status", status);
  if (type) query.set("type", type);
  const { tasks } = await ask(`tasks?${query}`);
  return tasks.filter((task) => !ids.length || ids.some((part) => task.id.includes(part)));
}

// ---------------------------------------------------------------- writing

const DASH = "–";
const clock = (date) => date.toLocaleTimeString([], { hourCycle: "h23" });
const count = (number) => (number ?? 0).toLocaleString("en");
const some = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const shortened = (id) => (/^[0-9a-f]{8}-[0-9a-f-]{27}$/.test(id) ? id.slice(0, 8) : id.slice(0, 24));

function seconds(value) {
  if (value == null) return DASH;
  if (value < 1e-5) return "0 ms";
  if (value < 0.9995) return `${Number((value * 1000).toPrecision(value < 0.01 ? 2 : 3))} ms`;
  if (value < 120) return `${Number(value.toFixed(value < 10 ? 2 : 1))} s`;
  return value < 7200 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
}

/** With how much of the limit that is, where there is one. */
function bytes({ used_bytes: used, share }) {
  const size = `${Number((used / 1e6).toPrecision(3)).toLocaleString("en")} MB`;
  return share == null ? size : `${size} · ${Math.round(100 * share)} %`;
}

const moment = (iso) => ({ textContent: iso ? clock(new Date(iso)) : DASH, title: iso ?? "" });
const link = (id) => ({ textContent: id ? shortened(id) : "", value: id ?? "", title: id ?? "", hidden: !id });

/** Changes what is different, and leaves alone what a reader may have selected. */
function set(node, properties) {
  for (const [name, value] of Object.entries(properties)) if (node[name] !== value) node[name] = value;
}

/** Writes values where `data-field` names them: a text, or properties of the element. Rows fill themselves. */
function fill(root, values) {
  for (const node of root.querySelectorAll("[data-field]")) {
    if (node.closest("[data-id]") !== root.closest("[data-id]")) continue;
    const value = values[node.dataset.field] ?? "";
    set(node, typeof value === "object" ? value : { textContent: String(value) });
    if (node.classList.contains("status")) node.dataset.status = node.textContent;
  }
}

/** Makes the rows of a list those of the items, which have ids. A row stays the same element as long as its item
 * is there, so that focus and selection stay; where the row with the focus goes, its neighbour gets the focus. */
function showRows(list, items, values = (item) => item) {
  const wanted = new Map(items.map((item) => [item.id, item]));
  for (const row of [...list.children]) if (!wanted.has(row.dataset.id)) removeRow(row);
  const rows = new Map([...list.children].map((row) => [row.dataset.id, row]));
  let place = list.firstElementChild;
  for (const [id, item] of wanted) {
    const row = rows.get(id) ?? newRow(list.id, id);
    if (row === place) place = place.nextElementSibling;
    else list.insertBefore(row, place);
    fill(row, values(item));
  }
}

function newRow(kind, id) {
  const row = $(`${kind}-row`).content.firstElementChild.cloneNode(true);
  row.dataset.id = id;
  for (const button of row.querySelectorAll("[data-label]")) {
    button.value = id;
    button.ariaLabel = `${button.dataset.label} ${shortened(id)}`;
  }
  return row;
}

function removeRow(row) {
  const action = row.contains(document.activeElement) && document.activeElement.dataset.action;
  const neighbour = row.nextElementSibling ?? row.previousElementSibling;
  const heading = row.closest("section")?.querySelector("h2");
  row.remove();
  if (action) (neighbour?.querySelector(`[data-action="${action}"]:not([hidden])`) ?? heading)?.focus();
}

/** Adds to the list of what happened; `mark` also draws a line into the charts. */
function note(text, mark = "") {
  const at = new Date();
  state.events.unshift({ id: `${at.getTime()} ${text}`, at, text, mark });
  showRows($("events"), state.events.slice(0, EVENTS), (event) => ({ time: clock(event.at), text: event.text }));
}

// ---------------------------------------------------------------- the parts of the page

function showStatus(kind, text) {
  $("status").dataset.kind = kind;
  set($("status"), { textContent: text }); // a screen reader says it, so only when it is new
  set(document, { title: `${kind} · dtq` });
}

function showHealth({ status, workers, gateway, reasons }) {
  const silence = seconds((new Date() - state.heard) / 1000);
  if (!state.heard) note(`Watching ${gateway}.`);
  else if (state.failures) note(`${state.lost} is back after ${silence}.`, "back");
  state.failures = 0;
  state.heard = new Date();
  if (state.paused) return showStatus("paused", `Paused. The figures are of ${clock(state.heard)}.`);
  const summary = `${status[0].toUpperCase()}${status.slice(1)}: ${some(workers, "worker")}.`;
  showStatus(status, [summary, ...reasons].join(" "));
}

function showFailure(error) {
  state.failures += 1;
  const what = error.message.replace(/;.*|\.$/, ""); // without "try again", which the page does
  if (state.failures === 1) note(`${what}.`, "away");
  state.lost = error instanceof Away ? "The gateway" : "The queue";
  const since = state.heard ? ` The figures are of ${clock(state.heard)}.` : "";
  showStatus(error instanceof Away ? "away" : "unhealthy", `${what}. Next try in ${pause()} s.${since}`);
}

function showFigures(stats) {
  const { counts, counters, run_s: run, wait_s: wait } = stats;
  state.counts = counts;
  const numbers = Object.fromEntries(Object.entries(counts).map(([name, value]) => [name, count(value)]));
  const both = (times) => `${seconds(times.p50)} · ${seconds(times.p95)}`;
  const throughput = Number((stats.throughput_per_s ?? 0).toPrecision(3));
  const times = { throughput: count(throughput), run: both(run), wait: both(wait) };
  fill($("figures"), { ...numbers, ...times, memory: bytes(stats.memory), amiss: amiss(stats) });
  showTypes(stats.by_type.map(({ type }) => type));
  const runMean = meanOf(stats.by_type);
  addSample({ at: new Date(), ...counts, throughput, wait, runMean, submitted: counters.submitted });
}

/** What somebody has to mend, so that tasks can go on. */
function amiss({ counts: { unreadable }, unknown_types: types }) {
  const unknown = types.length ? `No live worker knows ${types.join(", ")}: such tasks wait.` : "";
  const broken = unreadable
    ? `${some(unreadable, "task")} ${unreadable === 1 ? "has a document" : "have documents"} that nobody can read: ` +
      "dtq doctor says which, and what to do."
    : "";
  return [unknown, broken].filter(Boolean).join(" ");
}

/** Offers the types of late for the filter; a list that is open must not flicker. */
function showTypes(types) {
  if (types.join("\n") === state.types.join("\n")) return;
  state.types = types;
  $("types").replaceChildren(...types.map((type) => new Option("", type)));
}

/** Mean run time in the window: `run_s` itself tells of all results that are kept. */
function meanOf(types) {
  const done = types.filter(({ completed }) => completed);
  const sum = (weight) => done.reduce((total, type) => total + weight(type), 0);
  return done.length ? sum((type) => type.completed * type.run_s.mean) / sum((type) => type.completed) : null;
}

function showWorkers(workers, stats) {
  const now = new Map(workers.map((worker) => [worker.id, worker]));
  for (const [id, { current_task: task }] of state.workers ?? [])
    if (!now.has(id)) note(`${id} is gone${task ? `; it had task ${shortened(task)} in its hands` : ""}.`, id);
  for (const id of state.workers ? now.keys() : []) if (!state.workers.has(id)) note(`${id} is there.`);
  state.workers = now;
  set($("workers-note"), { textContent: `${workers.length} alive` });
  showRows($("workers"), workers, (worker) => ({
    id: worker.id,
    status: worker.status,
    task: link(worker.current_task),
    beat: seconds(Math.max(0, (Date.parse(stats.at) - Date.parse(worker.last_heartbeat)) / 1000)),
    done: count(worker.tasks_processed),
    process: `${worker.pid} on ${worker.host}`,
  }));
}

function showTasks(tasks) {
  const listed = tasks.slice(0, LISTED);
  const filtered = FILTERS.some((name) => $(name).value);
  const none = filtered ? "none fits the filter" : "none so far";
  set($("tasks-note"), { textContent: listed.length ? `newest first, ${listed.length} listed` : none });
  showRows($("tasks"), listed, (task) => ({
    status: task.status,
    type: task.type,
    task: link(task.id),
    created: moment(task.created_at),
    attempts: task.attempts,
    worker: task.worker_id ?? DASH,
    duration: seconds(task.duration),
  }));
}

function showDead(tasks) {
  const all = Math.max(state.counts.dead_letter, tasks.length);
  const part = all > tasks.length ? `, the newest ${tasks.length} listed` : "";
  set($("dead-note"), { textContent: all ? `${count(all)} to decide on${part}` : "empty: nothing to decide on" });
  $("dead").closest("section").classList.toggle("empty", !all);
  showRows($("dead"), tasks, (task) => ({ type: task.type, task: link(task.id), error: task.error }));
}

// ---------------------------------------------------------------- one task

async function open(id) {
  state.opened = id;
  fill($("detail"), { id });
  showRows($("attempts"), []);
  $("detail").showModal();
  await poll();
}

async function showDetail() {
  const id = state.opened;
  try {
    const task = await ask(`tasks/${encodeURIComponent(id)}`, { parse: parseExactly });
    if (state.opened === id) fillDetail(task);
  } catch (error) {
    if (error.status !== 404) throw error;
    fill($("detail"), { id, missing: error.message }); // its time was over, or it never was
  }
}

function fillDetail(task) {
  const attempts = attemptsOf(task);
  fill($("detail"), {
    ...task,
    created: moment(task.created_at),
    due: task.due && moment(task.due),
    ended: task.completed_at && moment(task.completed_at),
    duration: task.duration && seconds(plain(task.duration)),
    parents: task.depends_on.join(", "),
    error: attempts.at(-1)?.error === task.error ? "" : task.error,
    attempts: attempts.length ? "" : "It was not started yet.",
    data: text(task.data),
    result: task.status === "completed" ? text(task.result) : "There is none.",
  });
  showRows($("attempts"), attempts);
  $("detail-decide").hidden = task.status !== "failed";
  for (const button of $("detail-decide").children) button.value = task.id;
}

/** Those that ended badly, from the history, and the last one where it runs or was completed. */
function attemptsOf(task) {
  const bad = task.history.map((one) => {
    const took = (Date.parse(one.ended_at) - Date.parse(one.started_at)) / 1000;
    const text = placed(one.started_at, one.worker, took);
    return { id: `${one.attempt} ${one.ended_at}`, status: one.outcome, text, error: one.error };
  });
  if (!["processing", "completed"].includes(task.status)) return bad;
  const took = task.status === "completed" ? plain(task.duration) : null;
  return [...bad, { id: "last", status: task.status, text: placed(task.started_at, task.worker_id, took) }];
}

const placed = (start, worker, took) =>
  `started at ${clock(new Date(start))} on ${worker}${took == null ? "" : `, took ${seconds(took)}`}`;

const plain = (number) => (number == null ? null : Number(number.rawJSON ?? number));

function text(payload) {
  const all = JSON.stringify(payload, null, 2);
  return all.length > SHOWN ? `${all.slice(0, SHOWN)}\n… and ${count(all.length - SHOWN)} characters more` : all;
}

// ---------------------------------------------------------------- deciding

/** Asks for confirmation; true if it is given. */
function confirmed(sentence, verb) {
  const dialog = $("question");
  fill(dialog, { text: sentence, verb });
  dialog.returnValue = "no"; // what Escape means
  dialog.showModal();
  return new Promise((answer) =>
    dialog.addEventListener("close", () => answer(dialog.returnValue === "yes"), { once: true }),
  );
}

/** Retries or discards a dead task, or all of them, and says how many it were. */
async function decide(verb, id) {
  const path = `dead-letter${id ? `/${encodeURIComponent(id)}` : ""}${verb === "retry" ? "/retry" : ""}`;
  const which = id ? `task ${shortened(id)}` : "all dead tasks";
  try {
    const { count: done } = await ask(path, { method: DECISIONS[verb] });
    note(`${verb === "retry" ? "Retried" : "Discarded"} ${id ? which : some(done, "dead task")}.`);
  } catch (error) {
    note(`Could not ${verb} ${which}: ${error.message}`);
  }
  await poll();
}

const FOR_GOOD = "They are cancelled for good, with the tasks that wait for them.";
const actions = {
  open,
  retry: (id) => decide("retry", id),
  close: () => $("detail").close(),
  yes: () => $("question").close("yes"),
  no: () => $("question").close("no"),

  async discard(id) {
    const sentence = `Discard task ${shortened(id)}? It is cancelled for good, with the tasks that wait for it.`;
    if (await confirmed(sentence, "Discard")) await decide("discard", id);
  },
  async retryAll() {
    const sentence = `Retry all dead tasks? There are ${count(state.counts.dead_letter)} now.`;
    if (await confirmed(sentence, "Retry all")) await decide("retry");
  },
  async discardAll() {
    const sentence = `Discard all dead tasks? There are ${count(state.counts.dead_letter)} now. ${FOR_GOOD}`;
    if (await confirmed(sentence, "Discard all")) await decide("discard");
  },
  async logout() {
    await fetch("logout", { method: "POST", redirect: "manual" }).catch(() => {});
    location.reload();
  },
  pause(_, button) {
    state.paused = !state.paused;
    button.textContent = state.paused ? "Go on" : "Pause";
    poll(); // for the last time, or the first
  },
};

// ---------------------------------------------------------------- charts

const SERIES = {
  throughput: [
    { name: "completed", y: (sample) => sample.throughput, color: "--green", dash: "solid" },
    { name: "submitted", y: submittedPerSecond, color: "--blue", dash: "dot" },
  ],
  latency: [
    { name: "wait p95", y: ({ wait }) => wait.p95, color: "--red", dash: "dash" },
    { name: "wait p50", y: ({ wait }) => wait.p50, color: "--red", dash: "solid" },
    { name: "run mean", y: (sample) => sample.runMean, color: "--blue", dash: "dot" },
  ],
  depth: [
    { name: "pending", y: (sample) => sample.pending, color: "--blue", dash: "solid" },
    { name: "processing", y: (sample) => sample.processing, color: "--green", dash: "dash" },
    { name: "delayed", y: (sample) => sample.delayed, color: "--orange", dash: "dashdot" },
    { name: "waiting", y: (sample) => sample.waiting, color: "--purple", dash: "longdashdot" },
    { name: "dead letter", y: (sample) => sample.dead_letter, color: "--red", dash: "dot" },
  ],
};
const DECADES = [1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10, 100, 1000];
const COUNT_AXIS = { rangemode: "tozero", autorangeoptions: { include: [0, 5] } };
const LATENCY_AXIS = {
  type: "log",
  tickvals: DECADES,
  ticktext: ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s", "1000 s"],
};

function addSample(sample) {
  const oldest = sample.at - KEPT * 1000;
  state.samples = [...state.samples, sample].filter(({ at }) => at >= oldest);
  state.events = state.events.filter(({ at }, i) => i < EVENTS || at >= oldest);
  draw();
}

/** Between the sample and the one a window before it. */
function submittedPerSecond(sample) {
  const before = state.samples.find(({ at }) => at >= sample.at - WINDOW * 1000);
  return before === sample ? null : (sample.submitted - before.submitted) / ((sample.at - before.at) / 1000);
}

function draw() {
  if (!window.Plotly || !$("depth") || !state.samples.length) return;
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const samples = withGaps(state.samples);
  for (const [id, series] of Object.entries(SERIES)) {
    const traces = series.map(({ name, y, color: which, dash }) => ({
      name,
      x: samples.map(({ at }) => at),
      y: samples.map((sample) => (sample.gap ? null : y(sample))),
      mode: "lines",
      line: { color: color(which), dash, width: 2 },
    }));
    window.Plotly.react($(id), traces, layout(id, color), { displayModeBar: false, responsive: true });
    const said = id === "latency" ? seconds : (value) => (value == null ? DASH : count(value));
    const now = series.map(({ name, y }) => `${name} ${said(y(state.samples.at(-1)))}`);
    set($(id), { ariaLabel: `Chart of ${id}. Now: ${now.join(", ")}` });
  }
}

/** While nobody asked there is no line. */
function withGaps(samples) {
  return samples.flatMap((sample, i) => {
    const late = i && sample.at - samples[i - 1].at > 4 * INTERVAL * 1000;
    return late ? [{ at: new Date(sample.at - 1), gap: true }, sample] : [sample];
  });
}

/** As exponents of ten: from 10 ms to 1 s, or more where there is more. */
function latencyRange() {
  const times = state.samples.flatMap((sample) => SERIES.latency.map(({ y }) => y(sample))).filter(Boolean);
  return [Math.log10(Math.min(0.01, ...times)) - 0.1, Math.log10(Math.max(1, ...times)) + 0.1];
}

function layout(id, color) {
  const [first, last] = [state.samples[0].at, state.samples.at(-1).at];
  const axis = { gridcolor: color("--line"), linecolor: color("--line"), zeroline: false, fixedrange: true };
  const range = [new Date(Math.min(first, last - 60_000)), last];
  const line = { color: color("--soft"), width: 1, dash: "dot" };
  const word = { yref: "paper", y: 1, textangle: -90, xanchor: "right", yanchor: "top", showarrow: false };
  const marks = state.events.filter(({ mark, at }) => mark && at >= range[0]);
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: color("--text"), family: "system-ui, sans-serif", size: 12 },
    margin: { l: 56, r: 8, t: 12, b: 84 },
    hovermode: "x unified",
    hoverlabel: { bgcolor: color("--surface"), font: { color: color("--text") } },
    dragmode: false,
    showlegend: true,
    legend: { orientation: "h", x: 0, y: -0.14, yanchor: "top" },
    xaxis: { ...axis, type: "date", range, nticks: 5, tickformat: "%H:%M:%S" },
    yaxis: { ...axis, ...(id === "latency" ? { ...LATENCY_AXIS, range: latencyRange() } : COUNT_AXIS) },
    shapes: marks.map(({ at }) => ({ type: "line", x0: at, x1: at, y0: 0, y1: 1, yref: "paper", line })),
    annotations: marks.map(({ at, mark }) => ({ x: at, text: literal(shortened(mark)), ...word })),
  };
}

/** Plotly takes some HTML in its texts, such as links: here it is to show what a worker calls itself. */
const literal = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

// ---------------------------------------------------------------- start

document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-action]");
  if (button) actions[button.dataset.action](button.value, button);
});
$("detail").addEventListener("close", () => (state.opened = null));
for (const dialog of document.querySelectorAll("dialog"))
  dialog.addEventListener("close", () => document.activeElement === document.body && $("tasks-title").focus());

let typing;
for (const name of FILTERS)
  $(name).addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(poll, 250);
  });
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
poll();
