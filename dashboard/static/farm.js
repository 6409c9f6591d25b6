// Arrow keys leaf through a job's pictures.
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select")) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const link = rel && document.querySelector(`a[rel="${rel}"]`);
  if (link) link.click();
});

// The job page's poll says how far its gallery is loaded, so that no tile is sent that is not there.
document.addEventListener("htmx:configRequest", (event) => {
  const tiles = document.querySelectorAll(".gallery .tile").length;
  if (event.target.id === "status" && tiles) event.detail.parameters.through = tiles - 1;
});
