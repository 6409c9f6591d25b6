// The form for a new job: what is typed, pasted or dropped is previewed at once. Without this module all of it works
// by the form's own buttons.
import { Preview } from "./submit-preview.js";
import { Uploads } from "./submit-uploads.js";
import { watchPresets } from "./submit-presets.js";

const TEXT_ENDINGS = ["txt", "csv", "tsv", "jsonl"];
// What a page can hold and people can edit; larger files stay files.
const MAX_TEXT_BYTES = 1_000_000;

const form = document.getElementById("job-form");
form.classList.add("live");
const preview = new Preview(form);
const uploads = new Uploads(form, () => preview.now());

form.addEventListener("input", (event) => {
  // What is pasted next may be something else.
  if (event.target.id === "prompts" && !event.target.value) document.getElementById("format").value = "";
  if (preview.concerns(event.target)) preview.soon();
});
form.addEventListener("change", (event) => {
  const { target } = event;
  if (target.id === "file") takeRows(target.files[0]);
  else if (target.id === "pictures_file") takePictures(target);
  else if (target.dataset.upload) uploads.fill(target);
  else if ("column" in target.dataset) preview.now({ confirm: true });
  else if (preview.concerns(target)) preview.now();
});
form.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.id === "check" || button.id === "use-columns") {
    event.preventDefault();
    preview.now({ confirm: button.id === "use-columns", announce: true });
  }
});
// A page that was left with the back button keeps its fields.
window.addEventListener("pageshow", () => preview.hasRows() && preview.now());

watchDrops();
buildAxes();
watchPresets(form, () => preview.now());

// A small file of text goes into the field, where it can be mended; others are sent as they are.
async function takeRows(file) {
  const chosen = document.getElementById("file");
  const prompts = document.getElementById("prompts");
  if (!file) return preview.now();
  const ending = file.name.split(".").pop().toLowerCase();
  if (TEXT_ENDINGS.includes(ending) && file.size <= MAX_TEXT_BYTES) {
    try {
      prompts.value = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      document.getElementById("format").value = ending;
      chosen.value = "";
      return preview.now();
    } catch {
      // Not UTF-8: the farm says where.
    }
  }
  prompts.value = "";
  if (chosen.files[0] !== file) chosen.files = filesOf(file);
  return preview.now();
}

function takePictures(input) {
  uploads.add([...input.files]);
  input.value = "";
}

function filesOf(file) {
  const transfer = new DataTransfer();
  transfer.items.add(file);
  return transfer.files;
}

// Files may be dropped anywhere on the page: pictures that go in on their zone, or several at once; a single picture
// elsewhere is one whose parameters are wanted again; everything else holds rows.
function watchDrops() {
  const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  const mark = (zone) => {
    for (const marked of document.querySelectorAll(".drop.over")) if (marked !== zone) marked.classList.remove("over");
    if (zone) zone.classList.add("over");
  };
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(event.target.closest?.(".drop"));
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || mark(null));
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(null);
    const files = [...event.dataTransfer.files];
    const pictures = files.filter((file) => file.type.startsWith("image/"));
    const inZone = event.target.closest?.("[data-drop=pictures], #pictures");
    if (pictures.length && (inZone || pictures.length > 1)) {
      document.getElementById("pictures").open = true;
      uploads.add(pictures);
    } else if (pictures.length) {
      const restore = document.getElementById("restore_file");
      restore.files = filesOf(pictures[0]);
      form.requestSubmit(document.getElementById("restore"));
    }
    const rows = files.find((file) => !file.type.startsWith("image/"));
    if (rows) takeRows(rows);
  });
}

function buildAxes() {
  const builder = document.getElementById("axis-builder");
  const sweep = document.getElementById("sweep");
  const values = document.getElementById("axis-values");
  builder.hidden = false;
  const add = () => {
    const name = document.getElementById("axis-name").value;
    if (!values.value.trim()) return values.focus();
    const others = sweep.value.split(/[\n;]/).filter((axis) => axis.trim() && axis.split(/[:=]/)[0].trim() !== name);
    sweep.value = [...others.map((axis) => axis.trim()), `${name}: ${values.value.trim()}`].join("\n");
    values.value = "";
    return preview.now();
  };
  document.getElementById("axis-add").addEventListener("click", add);
  values.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    add();
  });
}
