// The gallery: tiles come and go as one scrolls (window.js), are walked by keys, marked and selected.
import { choose, Selection } from "./selection.js";
import { Window } from "./window.js";

const gallery = document.getElementById("gallery");
const status = document.getElementById("gallery-status");
const selection = new Selection(gallery, document.getElementById("picks"), say);
const view = gallery.dataset.base ? new Window(gallery, (tiles) => tiles.forEach((tile) => selection.show(tile))) : null;
const SIZE_KEY = "farm-tile-size";

function say(text) {
  status.textContent = text;
}

// Tiles

const tileOf = (element) => element?.closest?.(".tile");
const linkOf = (tile) => tile?.querySelector("a");

export function showRating(tile, rating) {
  tile.dataset.rating = rating;
  tile.querySelector(".mark .unseen").textContent = { 1: "starred", "-1": "rejected" }[rating] ?? "";
}

async function mark(tile, wanted) {
  if (!gallery.dataset.marks) return;
  const rating = Number(tile.dataset.rating) === wanted ? 0 : wanted;
  const [job, index] = tile.dataset.place.split(":");
  const answer = await fetch(`/api/v1/jobs/${job}/images/${index}`, {
    method: "PATCH",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ rating }),
  });
  if (!answer.ok) return say(`Picture ${Number(index) + 1} could not be marked: ${(await answer.json()).detail}`);
  // While it was asked, the tile may have been replaced.
  const shown = gallery.querySelector(`[data-place="${job}:${index}"]`);
  if (shown) showRating(shown, rating);
  say(`Picture ${Number(index) + 1} is ${{ 1: "starred", 0: "not marked", "-1": "rejected" }[rating]}.`);
}

// Keys: arrows walk, s stars, x rejects, space selects; Enter opens, because tiles are links.

function step(tile, key) {
  const columns = getComputedStyle(gallery).gridTemplateColumns.split(" ").length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const tiles = [...gallery.querySelectorAll(".tile")];
  const next = tiles[tiles.indexOf(tile) + by];
  if (next) {
    linkOf(next).focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  } else {
    view?.go(view.placeOf(tile) + by, { focus: true });
  }
}

gallery.addEventListener("keydown", (event) => {
  const tile = tileOf(event.target);
  if (!tile || event.altKey || event.ctrlKey || event.metaKey) return;
  const onLink = event.target === linkOf(tile);
  if (event.key.startsWith("Arrow")) step(tile, event.key);
  else if (event.key === "s") mark(tile, 1);
  else if (event.key === "x") mark(tile, -1);
  else if (event.key === " " && onLink) choose(tile, event.shiftKey);
  else if (event.key === "Home" && view) view.go(0, { focus: true });
  else if (event.key === "End" && view) view.go(view.total - 1, { focus: true });
  else return;
  event.preventDefault();
  event.stopPropagation();
});

// Whoever comes back from a picture finds the place again.
gallery.addEventListener("click", (event) => {
  const tile = tileOf(event.target);
  if (!tile || !view || !event.target.closest("a")) return;
  view.remember(tile);
});

// The server sends tiles that ended; those that are not shown now need no place. htmx would log each as an error.
document.addEventListener("htmx:beforeSwap", (event) => {
  const text = event.detail.serverResponse;
  if (typeof text !== "string" || !text.includes('hx-swap-oob="true"')) return;
  const answer = document.createElement("template");
  answer.innerHTML = text;
  for (const tile of answer.content.querySelectorAll(".tile[hx-swap-oob]")) {
    if (!document.getElementById(tile.id)) tile.remove();
  }
  event.detail.serverResponse = answer.innerHTML;
});
document.addEventListener("htmx:oobAfterSwap", (event) => {
  const tile = document.getElementById(event.detail.target.id);
  if (!tile?.matches(".tile")) return;
  view?.lay();
  selection.show(tile);
});

// Sizes of tiles

function setSize(size) {
  const before = view?.topPlace();
  gallery.dataset.size = size;
  for (const button of document.querySelectorAll("[data-size]:not(#gallery)")) {
    button.setAttribute("aria-pressed", String(button.dataset.size === size));
  }
  if (before > 0) view.go(before);
  view?.update();
}

const sizes = document.querySelector(".sizes");
sizes.hidden = false;
sizes.addEventListener("click", (event) => {
  const size = event.target.dataset.size;
  if (!size) return;
  localStorage.setItem(SIZE_KEY, size);
  setSize(size);
});
setSize(localStorage.getItem(SIZE_KEY) ?? "medium");

document.getElementById("go")?.addEventListener("submit", (event) => {
  if (gallery.hasAttribute("data-filtered")) return;
  event.preventDefault();
  view.go(document.getElementById("number").valueAsNumber - 1, { focus: true });
});

// What the bar at the lower edge does

selection.onMarked = () => view?.reload() ?? location.reload();
if (view) {
  const all = document.getElementById("pick-all");
  all.hidden = false;
  all.addEventListener("click", async () => selection.addAll(await view.ranges()));
  view.start();
}
