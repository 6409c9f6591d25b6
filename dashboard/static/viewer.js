// Zoom and move pictures: by wheel, fingers, buttons and keys. All frames of a page show the same part.

const STEP = 1.25;
const MOST = 16;
const frames = [...document.querySelectorAll("[data-zoom]")];
const view = { scale: 1, x: 0, y: 0 };
const pointers = new Map();
let moved = false;

const fitted = (frame) => frame.querySelector("img").clientWidth || 1;
// One pixel of the first picture is one of the page.
const full = () => (frames.length ? frames[0].querySelector("img").naturalWidth / fitted(frames[0]) / devicePixelRatio : 1);

function draw() {
  for (const frame of frames) {
    const image = frame.querySelector("img");
    // Moves are shares of the picture, so that pictures of different sizes go along.
    const [x, y] = [view.x * image.clientWidth, view.y * image.clientHeight];
    image.style.transform = `translate(${x}px, ${y}px) scale(${view.scale})`;
    image.style.imageRendering = view.scale > 2 * full() ? "pixelated" : "";
    frame.classList.toggle("zoomed", view.scale > 1.001);
  }
  const level = document.getElementById("zoom-level");
  if (level && frames[0]?.querySelector("img").naturalWidth) level.textContent = `${Math.round((view.scale / full()) * 100)} %`;
}

function clamp() {
  view.scale = Math.min(Math.max(view.scale, Math.min(1, full())), Math.max(MOST, full() * MOST));
  const room = Math.abs(view.scale - 1) / 2;
  view.x = Math.min(room, Math.max(-room, view.x));
  view.y = Math.min(room, Math.max(-room, view.y));
}

// Zoom so that the point (shares of the picture from its middle) stays where it is.
function zoom(scale, x = 0, y = 0) {
  const before = view.scale;
  view.scale = scale;
  clamp();
  const by = view.scale / before;
  view.x = x - (x - view.x) * by;
  view.y = y - (y - view.y) * by;
  clamp();
  draw();
}

function point(frame, event) {
  const image = frame.querySelector("img");
  const box = frame.getBoundingClientRect();
  return [(event.clientX - box.left - box.width / 2) / image.clientWidth, (event.clientY - box.top - box.height / 2) / image.clientHeight];
}

const actions = {
  in: () => zoom(view.scale * STEP),
  out: () => zoom(view.scale / STEP),
  fit: () => zoom(1),
  full: () => zoom(full()),
};

for (const frame of frames) {
  const link = frame.querySelector("a");
  frame.querySelector("img").addEventListener("load", draw);
  frame.addEventListener("wheel", (event) => {
    if (!event.deltaY) return;
    event.preventDefault();
    zoom(view.scale * Math.exp(-event.deltaY / 400), ...point(frame, event));
  }, { passive: false });
  frame.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, event);
    moved = false;
  });
  frame.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const image = frame.querySelector("img");
    const others = [...pointers.values()].filter((one) => one.pointerId !== event.pointerId);
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    if (Math.abs(dx) + Math.abs(dy) < 4 && !moved) return;
    if (!moved) frame.setPointerCapture(event.pointerId);
    moved = true;
    if (others.length) {
      const [other] = others;
      const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
      zoom((view.scale * distance(event)) / distance(before), ...point(frame, middle));
    } else if (view.scale !== 1) {
      view.x += dx / image.clientWidth;
      view.y += dy / image.clientHeight;
      clamp();
      draw();
    }
    pointers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, (event) => pointers.delete(event.pointerId));
  // What was moved is not opened; a click zooms, as Enter on the link does.
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (moved) moved = false;
    else if (view.scale > 1.001) zoom(1);
    else zoom(Math.max(full(), 2), ...(event.detail ? point(frame, event) : [0, 0]));
  });
  link.addEventListener("dragstart", (event) => event.preventDefault());
}

for (const group of document.querySelectorAll(".zoom-buttons")) {
  group.hidden = !frames.length;
  group.addEventListener("click", (event) => actions[event.target.dataset.do]?.());
}
addEventListener("resize", draw);
draw();

// Keys. Arrows to the neighbours are farm.js's.
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const action = { "+": "in", "=": "in", "-": "out", 0: "fit", 1: "full" }[event.key];
  if (action && frames.length) actions[action]();
  else if (event.key === "s") document.getElementById("star")?.click();
  else if (event.key === "x") document.getElementById("reject")?.click();
  else if (event.key === "Escape") document.getElementById("up")?.click();
  else return;
  event.preventDefault();
});

// The neighbours are fetched before they are asked for.
addEventListener("load", () => {
  for (const link of document.querySelectorAll("[data-preload]")) new Image().src = link.dataset.preload;
});

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.copy);
    const said = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(code.textContent);
      said.textContent = "Copied.";
    } catch {
      // Without https browsers give no clipboard: then it is selected, ready to be copied by hand.
      getSelection().selectAllChildren(code);
      said.textContent = "Selected; copy it with Ctrl+C.";
    }
  });
}
