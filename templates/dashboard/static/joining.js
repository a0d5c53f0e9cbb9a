// Looks every two seconds whether a new agent has come, until it has.

const PAUSE = 2_000;

async function look() {
  const shown = document.getElementById("joined");
  if (!shown || shown.dataset.state === "Connected") return;
  try {
    const answer = await fetch(shown.dataset.follow, { headers: { Accept: "text/html" }, redirect: "manual", cache: "no-store" });
    if (answer.ok) exchange(shown, new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    // The control plane is away: the sign in the head of the page says so, and the next look comes.
  }
  setTimeout(look, PAUSE);
}

function exchange(shown, page) {
  const fresh = page.getElementById("joined");
  if (!fresh || fresh.dataset.state === shown.dataset.state) return;
  shown.dataset.state = fresh.dataset.state;
  shown.replaceChildren(...document.importNode(fresh, true).childNodes);
}

setTimeout(look, PAUSE);
