// Keeps a section up to date by server-sent events. Where the server has no stream to spare, the section asks every
// few seconds instead, by its own hx-get. A hidden page neither listens nor asks: browsers allow few connections.
const POLL_MILLISECONDS = 3000;

function follow(section) {
  const address = new URL(section.dataset.events, location.href);
  let source = null;
  let timer = null;
  let ended = false;
  let state = section.dataset.state;
  let since = section.dataset.since;

  const swap = (place, html) => htmx.swap(place, html, { swapStyle: "innerHTML", settleDelay: 0, swapDelay: 0 });
  const handlers = {
    status: (event) => swap(section, event.data),
    tiles: (event) => {
      swap(document.createElement("div"), onlyThoseShown(event.data));
      const awaited = document.querySelector("[data-preview]")?.dataset.preview;
      if (awaited && event.data.includes(`id="image-${awaited}"`)) location.reload();
    },
    previews: (event) => {
      if (event.data) document.dispatchEvent(new CustomEvent("farm:previews", { detail: JSON.parse(event.data) }));
    },
    said: (event) => announce(event.data),
    state: (event) => {
      if (state !== undefined && state !== event.data) refresh();
      state = event.data;
    },
    reload: () => location.reload(),
    end: () => { ended = true; close(); refresh(); },
  };

  function open() {
    if (source || timer || ended) return;
    if (since) address.searchParams.set("since", since);
    source = new EventSource(address);
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        if (event.lastEventId) since = event.lastEventId;
        handle(event);
      });
    }
    source.addEventListener("error", () => {
      // While it is connecting again the browser sees to it; closed means that the server refused.
      if (source && source.readyState === EventSource.CLOSED) { close(); poll(); }
    });
  }

  function poll() {
    timer = setInterval(() => htmx.trigger(section, "farm:poll"), POLL_MILLISECONDS);
  }

  function close() {
    source?.close();
    source = null;
    clearInterval(timer);
    timer = null;
  }

  const turn = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", turn);
  addEventListener("pagehide", close);
  addEventListener("pageshow", turn);
  turn();
}

// Tiles come out of band: each finds its place by its id. Those that have none on the page htmx would call errors.
function onlyThoseShown(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  for (const tile of holder.content.querySelectorAll(".tile")) {
    if (!document.getElementById(tile.id)) tile.remove();
  }
  return holder.innerHTML;
}

// Other buttons, but not under the hands of whoever is just filling one of their forms in.
function refresh() {
  if (!document.querySelector("#actions [open]")) htmx.trigger(document.body, "farm:state");
}

// Screen readers are told in large steps.
function announce(text) {
  const place = document.getElementById("announcement");
  if (place) place.textContent = text;
}

document.querySelectorAll("[data-events]").forEach(follow);

// One box ticks all others.
document.addEventListener("change", (event) => {
  const all = event.target.dataset?.all;
  if (all) document.querySelectorAll(all).forEach((box) => { box.checked = event.target.checked; });
});
