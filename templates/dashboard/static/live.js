// Keeps a page that is open as it would be if it were fetched now. Without this module pages work; they stand still.
//
// /api/v1/stream says that something changed; the page is fetched again and its parts with [data-region] are exchanged
// where they differ, each by its id. What a person does there (focus, scrolling, what is folded open, text begun) stays.
// A page says with data-live="agent timeline" on any element which topics concern it; without it all do.
// A page that nobody sees lets go of its stream: browsers open six connections to one host, for all tabs together.

const SILENCE = 35_000; // the stream says something every 15 s
const GAP = 1_500; // between two fetches
const TOPICS = ["revision", "agent", "object", "timeline", "front"];

const sign = document.getElementById("live");
const regions = () => document.querySelectorAll("[data-region][id]");
let heard = Date.now();
let fetched = 0;
let planned = 0;
let isMissed = false;
let isOver = false;

function say(text, isStale, link) {
  if (sign.dataset.said === text) return;
  sign.dataset.said = text;
  sign.hidden = false;
  sign.classList.toggle("stale", isStale);
  sign.replaceChildren(text);
  if (link) {
    const anchor = document.createElement("a");
    [anchor.href, anchor.textContent] = link;
    sign.append(" ", anchor);
  }
}

function live() {
  heard = Date.now();
  if (!isOver) say("Live", false);
}

function stale() {
  if (isOver) return;
  const since = new Date(heard).toLocaleTimeString([], { hour12: false });
  say(`Not live since ${since} –`, true, [location.href, "reload"]);
}

function loggedOut() {
  isOver = true;
  stream?.close();
  const here = encodeURIComponent(location.pathname + location.search);
  say("Your session has ended –", true, [`/login?next=${here}`, "log in again"]);
}

// --- fetching the page again ---------------------------------------------------------------------------------------

function plan() {
  if (!regions().length) return; // nothing on this page would change, and one that answers a form need not be there again
  isMissed = true;
  if (planned || isOver || document.hidden) return;
  planned = setTimeout(refresh, Math.max(GAP, fetched + GAP - Date.now()));
}

async function refresh() {
  planned = 0;
  if (document.hidden || isOver) return;
  isMissed = false;
  fetched = Date.now();
  let answer;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual", cache: "no-store" });
  } catch {
    return stale();
  }
  if (answer.type === "opaqueredirect" || answer.status === 401) return loggedOut();
  if (!answer.ok) return stale();
  exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
  if (isMissed) plan();
}

function exchange(next) {
  const version = (page) => page.querySelector('meta[name="version"]')?.content;
  if (version(next) !== version(document)) {
    // The control plane is another one now: its pages go with its own styles and modules.
    if (!isBusyHere(document.body)) location.reload();
    return;
  }
  for (const old of regions()) {
    const fresh = next.getElementById(old.id);
    if (!fresh || same(old, fresh) || isBusyHere(old)) continue;
    const state = keep(old);
    old.replaceChildren(...document.importNode(fresh, true).childNodes);
    restore(old, state);
  }
  tellTimes();
  document.dispatchEvent(new CustomEvent("regions"));
}

function same(old, fresh) {
  const plain = (element) => {
    const copy = element.cloneNode(true);
    for (const one of copy.querySelectorAll("time[data-ago]")) one.textContent = "";
    for (const one of copy.querySelectorAll("details")) one.removeAttribute("open");
    return copy.innerHTML;
  };
  return plain(old) === plain(fresh);
}

// Somebody has begun to fill a form in there, or has text selected: not now.
function isBusyHere(region) {
  for (const one of region.querySelectorAll("input, textarea, select")) {
    const changed = one instanceof HTMLSelectElement
      ? [...one.options].some((option) => option.selected !== option.defaultSelected) && one === document.activeElement
      : one.type === "checkbox" || one.type === "radio" ? one.checked !== one.defaultChecked : one.value !== one.defaultValue;
    if (changed) return true;
  }
  const selection = getSelection();
  return Boolean(selection && !selection.isCollapsed && region.contains(selection.anchorNode));
}

// --- what stays ----------------------------------------------------------------------------------------------------

function place(element, region) {
  if (element.id) return { id: element.id };
  const all = [...region.querySelectorAll(element.localName)];
  return { name: element.localName, index: all.indexOf(element), href: element.getAttribute("href") };
}

function find(where, region) {
  if (where.id) return region.querySelector(`#${CSS.escape(where.id)}`);
  const all = [...region.querySelectorAll(where.name)];
  const named = where.href && all.find((one) => one.getAttribute("href") === where.href);
  return named || all[where.index];
}

function keep(region) {
  const focused = region.contains(document.activeElement) ? place(document.activeElement, region) : null;
  const open = [...region.querySelectorAll("details")].map((one) => [place(one, region), one.open]);
  const scrolled = [...region.querySelectorAll("*")]
    .filter((one) => one.scrollTop || one.scrollLeft)
    .map((one) => [place(one, region), one.scrollTop, one.scrollLeft]);
  return { focused, open, scrolled };
}

function restore(region, { focused, open, scrolled }) {
  for (const [where, isOpen] of open) {
    const one = find(where, region);
    if (one) one.open = isOpen;
  }
  for (const [where, top, left] of scrolled) find(where, region)?.scrollTo({ top, left, behavior: "instant" });
  if (focused) find(focused, region)?.focus({ preventScroll: true });
}

// --- times ---------------------------------------------------------------------------------------------------------

const STEPS = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [86400 * 400, 86400, "d"]];

function tellTimes() {
  for (const one of document.querySelectorAll("time[data-ago]")) {
    const distance = (Date.parse(one.dateTime) - Date.now()) / 1000;
    const step = STEPS.find(([below]) => Math.abs(distance) < below);
    if (!step) continue;
    const count = `${Math.floor(Math.abs(distance) / step[1])} ${step[2]}`;
    const text = distance > 0 ? `in ${count}` : `${count} ago`;
    if (one.textContent !== text) one.textContent = text;
  }
}

// --- the stream ----------------------------------------------------------------------------------------------------

let stream = null;

function listen() {
  stream?.close();
  const wanted = document.querySelector("[data-live]")?.dataset.live?.split(" ") ?? TOPICS;
  stream = new EventSource(`/api/v1/stream?topics=${wanted.join(",")}`);
  heard = Date.now();
  stream.onopen = live;
  stream.onerror = () => {
    stale();
    if (stream.readyState === EventSource.CLOSED) setTimeout(again, 5_000);
  };
  stream.onmessage = live;
  stream.addEventListener("ping", live);
  stream.addEventListener("expired", again);
  for (const topic of [...wanted, "missed"]) {
    stream.addEventListener(topic, () => {
      live();
      plan();
    });
  }
}

// The stream was ended, or answered with an error: the page itself says whether the session is still good.
async function again() {
  if (isOver) return;
  await refresh();
  if (!isOver) listen();
}

setInterval(() => {
  if (document.hidden) return;
  tellTimes();
  if (Date.now() - heard > SILENCE) {
    stale();
    plan();
  }
}, 5_000);
let hidden = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.hidden) {
    hidden = setTimeout(() => stream?.close(), 10_000);
  } else if (!isOver) {
    tellTimes();
    if (stream?.readyState === EventSource.CLOSED) again();
    else if (isMissed) plan();
  }
});
// A menu closes when one goes elsewhere in the page, or presses Escape.
document.addEventListener("click", (event) => closeMenus(event.target));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = document.querySelector("details.menu[open]");
  closeMenus(null);
  open?.querySelector("summary")?.focus();
});
function closeMenus(target) {
  for (const one of document.querySelectorAll("details.menu[open]")) if (!one.contains(target)) one.open = false;
}
tellTimes();
listen();
