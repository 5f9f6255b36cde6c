// Keeps the strip up to date: while something is on its way, and when the visitor comes back to this window.
const strip = document.getElementById("tour");
const url = `${strip.dataset.url}?page=${encodeURIComponent(location.pathname)}`;
let shown = "";
let waiting = 0;

async function look() {
  clearTimeout(waiting);
  try {
    const answer = await fetch(url);
    const html = answer.ok ? await answer.text() : shown;
    if (html !== shown) {
      strip.innerHTML = shown = html;
    }
  } catch {
    return; // the visitor is leaving, or the server is gone
  }
  lookAgain();
}

function lookAgain() {
  if (strip.querySelector("[data-busy]")) {
    waiting = setTimeout(look, 500);
  }
}

addEventListener("focus", look);
lookAgain();
