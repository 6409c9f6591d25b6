// Asks the farm what the form would become, and shows its answer: at most one question is on its way.
const PAUSE_MILLISECONDS = 450;
const MAX_PAUSE_MILLISECONDS = 5_000;
// Files beyond this are sent when they are chosen and when somebody asks, not with every key.
const LARGE_BYTES = 4_000_000;
const NOT_PREVIEWED = new Set(["preset_name", "preset_shared", "restore_file", "pictures_file"]);

export class Preview {
  #form;
  #place = document.getElementById("preview");
  #timer;
  #request;
  #pause = PAUSE_MILLISECONDS;

  constructor(form) {
    this.#form = form;
    this.#tell(false);
  }

  concerns(field) {
    return field.name && !NOT_PREVIEWED.has(field.name) && !field.name.endsWith("_file");
  }

  hasRows() {
    const { prompts, file } = this.#form.elements;
    return prompts.value.trim() !== "" || file.files.length > 0;
  }

  soon() {
    const file = this.#form.elements.file.files[0];
    if (file && file.size > LARGE_BYTES) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.now(), this.#pause);
  }

  async now({ confirm = false, announce = false } = {}) {
    clearTimeout(this.#timer);
    this.#request?.abort();
    const request = (this.#request = new AbortController());
    this.#place.setAttribute("aria-busy", "true");
    const asked = performance.now();
    try {
      const response = await fetch(this.#form.dataset.preview, {
        method: "POST",
        body: this.#body(confirm),
        headers: { "HX-Request": "true" },
        signal: request.signal,
      });
      if (response.ok) this.#show(await response.text());
      else this.#say(`The farm cannot preview this (${response.status}). ${await reason(response)}`);
      this.#tell(announce);
      // What takes the farm long is not asked with every pause in typing.
      this.#pause = Math.min(Math.max(PAUSE_MILLISECONDS, performance.now() - asked), MAX_PAUSE_MILLISECONDS);
    } catch (error) {
      if (error.name !== "AbortError") this.#say("The farm does not answer. What you wrote is kept; try again.");
    }
    if (this.#request === request) this.#place.removeAttribute("aria-busy");
  }

  #body(confirm) {
    const body = new FormData(this.#form);
    for (const name of [...new Set(body.keys())]) {
      if (NOT_PREVIEWED.has(name) || (name.endsWith("_file") && name !== "file")) body.delete(name);
    }
    const digest = document.getElementById("use-columns")?.dataset.digest;
    if (confirm && digest) body.set("columns_for", digest);
    return body;
  }

  #show(html) {
    const focused = this.#place.contains(document.activeElement) ? document.activeElement.id : "";
    const scroll = this.#place.querySelector(".preview-scroll");
    const [left, top] = [scroll?.scrollLeft ?? 0, scroll?.scrollTop ?? 0];
    this.#place.innerHTML = html;
    if (focused) document.getElementById(focused)?.focus();
    this.#place.querySelector(".preview-scroll")?.scrollTo(left, top);
  }

  #say(text) {
    const line = document.createElement("p");
    line.className = "bad";
    line.textContent = text;
    this.#place.replaceChildren(line);
  }

  // What the preview comes to, beside the buttons and for screen readers.
  #tell(announce) {
    const verdict = document.getElementById("verdict");
    const text = verdict?.textContent.trim().replace(/\s+/g, " ") ?? "";
    const words = document.getElementById("submit-words");
    words.textContent = text;
    words.classList.toggle("bad", verdict?.classList.contains("bad") ?? false);
    const status = document.getElementById("preview-status");
    if (announce || status.textContent !== text) status.textContent = text;
  }
}

async function reason(response) {
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  return page.querySelector("main")?.textContent.trim().replace(/\s+/g, " ").slice(0, 300) ?? "";
}
