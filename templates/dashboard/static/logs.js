// Follows a log by the API's own endpoint: one JSON object a line (schemas/deployments_api.py), sent as it is said.
//
// What programs write becomes text nodes and nothing else. The page keeps the newest lines and forgets the others, also
// those that came while it was paused or hidden, so that a program that writes without end fills no memory.

const KEPT = 2_000;
const LONGEST = 16_384; // characters of a line; what is longer is cut into several
// Control sequences (ECMA-48, 5.4), commands of terminals, and shorter ones; then all else that has no shape of its own.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_]|[ -/]+[0-~])/g;
const SHAPELESS = /[^\P{C}\t]|[\u2028\u2029]/gu;

const log = document.getElementById("log");
const state = document.getElementById("log-state");
const pause = document.getElementById("log-pause");
const again = document.getElementById("log-again");
const filter = document.getElementById("log-filter");
const isMany = "many" in log.dataset;

let waiting = [];
let leftOut = 0;
let isPaused = false;
let isDrawing = false;
let isFirst = true;
let rest = new Map();
let speaking = new Set();
let ends = [];
let connection = null;

export function plain(text) {
  return text.replace(ESCAPES, "").replace(/\r$/, "").replace(SHAPELESS, (one) => {
    const code = one.codePointAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

// --- what is said --------------------------------------------------------------------------------------------------

function take(said) {
  const { agent = "", stream = "stdout", text = "", dropped = 0, ended = false, reason = "", message = "" } = said;
  const key = `${stream} ${agent}`;
  if (!ended) speaking.add(agent);
  if (dropped) add({ agent, note: `${dropped} lines left out: nobody took them in time` });
  if (text) {
    const lines = ((rest.get(key) ?? "") + text).split("\n");
    let last = lines.pop();
    for (const line of lines) add({ agent, stream, text: line });
    while (last.length > LONGEST) {
      add({ agent, stream, text: last.slice(0, LONGEST) });
      last = last.slice(LONGEST);
    }
    rest.set(key, last);
  }
  if (ended) {
    for (const one of ["stdout", "stderr"]) {
      const left = rest.get(`${one} ${agent}`);
      if (left) add({ agent, stream: one, text: left });
      rest.delete(`${one} ${agent}`);
    }
    speaking.delete(agent);
    ends.push(reason ? `${agent}: ${reason}${message ? `, ${message}` : ""}` : `${agent} has ended`);
  }
  tell();
}

function add(line) {
  waiting.push(line);
  if (waiting.length > KEPT) {
    leftOut += waiting.length - KEPT;
    waiting = waiting.slice(-KEPT);
  }
  if (!isPaused && !isDrawing) {
    isDrawing = true;
    requestAnimationFrame(draw);
  }
}

// --- what is shown -------------------------------------------------------------------------------------------------

function draw() {
  isDrawing = false;
  if (isPaused || !waiting.length) return;
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (isFirst) log.replaceChildren(); // the lines that came with the page come again with the stream
  isFirst = false;
  const fresh = document.createDocumentFragment();
  if (leftOut) fresh.append(element({ note: `${leftOut} lines are not shown: they came too fast` }));
  for (const line of waiting) fresh.append(element(line));
  waiting = [];
  leftOut = 0;
  log.append(fresh);
  while (log.childElementCount > KEPT) log.firstElementChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function element({ agent = "", stream = "", text = "", note = "" }) {
  const line = document.createElement("div");
  line.className = note ? "line note" : stream === "stderr" ? "line error-stream" : "line";
  if (isMany && agent) line.append(span("by", plain(agent)));
  line.append(span("text", plain(note || text)));
  sift(line);
  return line;
}

function span(name, text) {
  const one = document.createElement("span");
  one.className = name;
  one.textContent = text;
  return one;
}

function sift(line) {
  const wanted = filter.value.toLowerCase();
  line.hidden = Boolean(wanted) && !line.textContent.toLowerCase().includes(wanted);
}

function tell(text = "", isStale = false) {
  const following = speaking.size
    ? `Following${isMany ? ` ${speaking.size} agent${speaking.size === 1 ? "" : "s"}` : ""}${isPaused ? ", paused" : ""}.`
    : "Connecting…";
  const said = [text || following, ...ends.slice(-3)].join(" ");
  if (state.textContent !== said) state.textContent = said;
  state.classList.toggle("stale", isStale);
}

// --- the stream ----------------------------------------------------------------------------------------------------

async function follow() {
  connection?.abort();
  const mine = new AbortController();
  connection = mine;
  rest = new Map();
  speaking = new Set();
  ends = [];
  isFirst = true;
  again.hidden = true;
  tell();
  let why = "";
  try {
    why = await read(mine.signal);
  } catch {
    why = "The connection ended.";
  }
  if (connection !== mine) return;
  const at = new Date().toLocaleTimeString([], { hour12: false });
  speaking.clear();
  tell(`Not following since ${at}. ${why}`.trim(), true);
  again.hidden = false;
}

async function read(signal) {
  const answer = await fetch(log.dataset.follow, { headers: { Accept: "application/x-ndjson" }, cache: "no-store", signal });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    return [problem.detail ?? `The control plane answered ${answer.status}.`, problem.hint].filter(Boolean).join(" ");
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let open = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return "";
    const lines = (open + value).split("\n");
    open = lines.pop();
    for (const line of lines) if (line.trim()) take(JSON.parse(line));
  }
}

pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.setAttribute("aria-pressed", String(isPaused));
  pause.textContent = isPaused ? "Go on" : "Pause";
  tell();
  draw();
});
again.addEventListener("click", follow);
filter.addEventListener("input", () => {
  for (const line of log.querySelectorAll(".line")) sift(line);
});
addEventListener("pagehide", () => connection?.abort());
addEventListener("pageshow", (event) => {
  if (event.persisted) follow();
});
document.getElementById("log-live").hidden = false;
log.scrollTop = log.scrollHeight;
follow();
