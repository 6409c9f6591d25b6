// Pictures that go in: uploaded a few at a time as soon as they are dropped, and known to rows by their file names.
const AT_ONCE = 3;

export class Uploads {
  #form;
  #done;
  #field = document.getElementById("inputs");
  #list = document.getElementById("uploads");
  #status = document.getElementById("uploads-status");
  #waiting = [];
  #active = 0;
  #refs = new Map();

  // `done` is called when nothing is on its way any more.
  constructor(form, done) {
    this.#form = form;
    this.#done = done;
    for (const [name, ref] of Object.entries(parse(this.#field.value))) {
      this.#refs.set(name, ref);
      this.#item(name).classList.add("ready");
    }
    this.#tell();
  }

  add(files, then = () => {}) {
    for (const file of files) this.#waiting.push({ file, item: this.#item(file.name, file), then });
    this.#next();
  }

  // For the file inputs of single parameters: their text fields then hold the names.
  fill(input) {
    const files = [...input.files];
    const text = this.#form.querySelector(`input[name="${input.dataset.upload}"]`);
    if (files.length === 0) return;
    document.getElementById("pictures").open = true;
    text.value = "";
    this.add(files, (name) => {
      text.value = input.multiple && text.value ? `${text.value}, ${name}` : name;
    });
    input.value = "";
  }

  #item(name, file) {
    for (const old of this.#list.children) if (old.dataset.name === name) old.remove();
    const item = document.createElement("li");
    item.dataset.name = name;
    if (file) {
      const image = document.createElement("img");
      image.alt = "";
      image.src = URL.createObjectURL(file);
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
      image.addEventListener("error", () => image.remove(), { once: true });
      item.append(image);
    }
    const label = document.createElement("bdi");
    label.textContent = name;
    const state = document.createElement("progress");
    state.max = 1;
    state.setAttribute("aria-label", `Upload of ${name}`);
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "plain-x";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove ${name}`);
    remove.addEventListener("click", () => this.#remove(item));
    item.append(label, remove);
    if (file) item.append(state);
    this.#list.append(item);
    return item;
  }

  #remove(item) {
    this.#waiting = this.#waiting.filter((entry) => entry.item !== item);
    this.#refs.delete(item.dataset.name);
    item.remove();
    this.#write();
    this.#done();
  }

  #next() {
    while (this.#active < AT_ONCE && this.#waiting.length) this.#send(this.#waiting.shift());
    this.#tell();
  }

  // XMLHttpRequest, because fetch tells nothing of an upload's progress.
  #send({ file, item, then }) {
    this.#active += 1;
    const request = new XMLHttpRequest();
    request.open("POST", this.#form.dataset.inputs);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      const bar = item.querySelector("progress");
      if (bar && event.lengthComputable) bar.value = event.loaded / event.total;
    });
    request.addEventListener("loadend", () => {
      this.#active -= 1;
      item.querySelector("progress")?.remove();
      if (request.status === 201 && item.isConnected) {
        this.#refs.set(file.name, request.response.input);
        item.classList.add("ready");
        this.#write();
        then(file.name);
      } else if (item.isConnected) {
        const message = document.createElement("span");
        message.className = "wrong";
        const problem = request.response?.errors?.[0]?.message ?? request.response?.detail;
        message.textContent = problem ?? "did not arrive; try again";
        item.append(message);
      }
      this.#next();
      if (this.#active === 0 && this.#waiting.length === 0) this.#done();
    });
    request.send(file);
  }

  #write() {
    this.#field.value = this.#refs.size ? JSON.stringify(Object.fromEntries(this.#refs)) : "";
    this.#tell();
  }

  #tell() {
    const left = this.#active + this.#waiting.length;
    const count = this.#refs.size;
    const ready = count ? `${count} ${count === 1 ? "picture is" : "pictures are"} there` : "";
    this.#status.textContent = left ? `${left} on their way. ${ready}` : ready;
  }
}

function parse(text) {
  try {
    const value = JSON.parse(text || "{}");
    return value && typeof value === "object" ? value : {};
  } catch {
    return {};
  }
}
