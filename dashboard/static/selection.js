// Which pictures are selected. Their boxes may be out of the page while one scrolls, so the numbers are kept here.

const MOST_COMPARED = 4;

export function choose(tile, withShift) {
  const box = tile.querySelector(".pick input");
  box.checked = !box.checked;
  box.dispatchEvent(new CustomEvent("change", { bubbles: true, detail: { withShift } }));
}

export class Selection {
  constructor(gallery, form, say) {
    this.gallery = gallery;
    this.form = form;
    this.say = say;
    this.places = new Set();
    this.last = null;
    if (!form) return;
    form.classList.add("live");
    gallery.addEventListener("click", (event) => { this.shift = event.shiftKey; }, true);
    gallery.addEventListener("change", (event) => this.changed(event));
    form.addEventListener("submit", (event) => this.submit(event));
    form.addEventListener("formdata", (event) => this.fill(event.formData));
    const none = document.getElementById("unpick");
    none.hidden = false;
    none.addEventListener("click", () => this.clear());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.places.size && !event.target.matches("input, select, textarea")) this.clear();
    });
    // A browser that goes back restores boxes.
    for (const box of gallery.querySelectorAll(".pick input:checked")) this.places.add(box.value);
    this.tell();
  }

  show(tile) {
    const box = tile.querySelector(".pick input");
    if (box) box.checked = this.places.has(box.value);
  }

  changed(event) {
    const box = event.target;
    if (box.name !== "picture") return;
    const withShift = event.detail?.withShift ?? this.shift;
    const values = withShift && this.last && box.checked ? this.between(this.last, box.value) : [box.value];
    for (const value of values) {
      if (box.checked) this.places.add(value);
      else this.places.delete(value);
    }
    this.last = box.value;
    this.shift = false;
    this.refresh();
  }

  // From one to the other as they stand in the gallery; in a whole job also those that are scrolled away.
  between(one, other) {
    const [job, first] = one.split(":");
    const last = other.split(":")[1];
    if (this.gallery.dataset.base && !this.gallery.hasAttribute("data-filtered")) {
      const [low, high] = [Number(first), Number(last)].sort((a, b) => a - b);
      return Array.from({ length: high - low + 1 }, (_, place) => `${job}:${low + place}`);
    }
    const shown = [...this.gallery.querySelectorAll(".pick input")].map((box) => box.value);
    const [low, high] = [shown.indexOf(one), shown.indexOf(other)].sort((a, b) => a - b);
    return low < 0 ? [other] : shown.slice(low, high + 1);
  }

  addAll(places) {
    for (const place of places) this.places.add(place);
    this.refresh();
  }

  clear() {
    this.places.clear();
    this.refresh();
  }

  refresh() {
    for (const tile of this.gallery.querySelectorAll(".tile")) this.show(tile);
    this.tell();
  }

  tell() {
    const count = this.places.size;
    this.form.classList.toggle("some", count > 0);
    this.gallery.classList.toggle("picking", count > 0);
    const text = `${count.toLocaleString("en").replaceAll(",", "\u202f")} ${count === 1 ? "picture" : "pictures"} selected`;
    document.getElementById("picked").textContent = count ? text : "";
    const compare = this.form.querySelector("[data-compare]");
    compare.disabled = count < 2 || count > MOST_COMPARED;
    compare.title = compare.disabled ? `Select 2 to ${MOST_COMPARED} pictures to compare them` : "";
  }

  indices() {
    return [...this.places].map((place) => Number(place.split(":")[1])).sort((a, b) => a - b);
  }

  // 0,5,7-9
  ranges() {
    const ranges = [];
    for (const index of this.indices()) {
      const last = ranges.at(-1);
      if (last && last[1] === index - 1) last[1] = index;
      else ranges.push([index, index]);
    }
    return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
  }

  fill(data) {
    data.delete("picture");
    if (this.comparing) {
      for (const name of [...data.keys()]) data.delete(name);
      data.set("pictures", [...this.places].join(","));
    } else if (this.form.dataset.marks) data.set("images", this.ranges());
    else data.set("pictures", [...this.places].join(","));
  }

  async submit(event) {
    const button = event.submitter;
    this.comparing = Boolean(button?.hasAttribute("data-compare"));
    if (!this.places.size) {
      event.preventDefault();
      this.say("Select some pictures first.");
      return;
    }
    const action = button?.value;
    if (!this.form.dataset.marks || !action) return;
    event.preventDefault();
    const tags = this.form.elements.tags.value.split(",").map((tag) => tag.trim()).filter(Boolean);
    const change = action.endsWith("_tags") ? { [action]: tags } : { rating: Number(action) };
    const answer = await fetch(this.form.dataset.marks, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ images: this.ranges(), ...change }),
    });
    const said = await answer.json();
    if (!answer.ok) return this.say(`Nothing was marked: ${said.detail}`);
    this.say(`${said.marked} ${said.marked === 1 ? "picture is" : "pictures are"} marked.`);
    this.form.elements.tags.value = "";
    this.onMarked?.();
  }
}
