// Shows a long gallery through a window: only the pages of tiles around the visible part are in the document.
//
// All tiles of a gallery are equally high, so where a picture stands follows from its place alone: padding above and below
// stands for what is taken out. Pages are fetched by key: the index of their first picture, which without a filter is a
// multiple of the page, and with one is asked for once.

// Firefox draws nothing beyond 17.8 million pixels: a longer gallery shows a part of itself, and moves it along.
const MAX_HEIGHT = 16_000_000;
// So many pages are kept above and below those that can be seen.
const MARGIN = 1;
// While the scroll bar is dragged, pages on the way are not fetched.
const SETTLE_MILLISECONDS = 90;
const MOST_SETTLES = 5;
// What an address says of the pictures that are meant.
const FILTER = ["state", "mark", "tag", "q", "seed", "images"];

export class Window {
  constructor(gallery, onShown) {
    this.gallery = gallery;
    this.onShown = onShown;
    this.size = Number(gallery.dataset.page);
    this.total = Number(gallery.dataset.total);
    this.starts = null;
    this.pages = new Map();
    this.origin = 0;
    this.ready = false;
    this.filter = new URLSearchParams(location.search);
    for (const name of ["after", "at", "number", "unused"]) this.filter.delete(name);
  }

  async start() {
    const tiles = [...this.gallery.querySelectorAll(".tile")];
    const wanted = this.wantedIndex();
    if (this.gallery.hasAttribute("data-filtered")) {
      const answer = await fetch(`${this.gallery.dataset.base}/fragments/found?${this.filter}`);
      if (!answer.ok) return;
      ({ total: this.total, starts: this.starts } = await answer.json());
    }
    if (!tiles.length) return;
    document.querySelector(".from-first")?.remove();
    const first = this.indexOf(tiles[0]);
    const page = this.pageOfIndex(first);
    this.ready = true;
    this.measure();
    if (this.startOf(page) === first) this.pages.set(page, tiles);
    else tiles.forEach((tile) => tile.remove());
    const more = this.gallery.querySelector(".more") ?? this.gallery.appendChild(document.createElement("li"));
    more.className = "more";
    more.hidden = true;
    more.innerHTML = '<input type="hidden" name="below">';
    this.more = more;
    this.lay();
    addEventListener("scroll", () => this.soon(), { passive: true });
    addEventListener("resize", () => this.soon(), { passive: true });
    if (wanted !== null && this.total > 0) await this.goToIndex(wanted);
    else if (page > 0) await this.go(page * this.size);
    else await this.update();
  }

  // Geometry

  measure() {
    const style = getComputedStyle(this.gallery);
    this.columns = style.gridTemplateColumns.split(" ").length;
    const tile = this.gallery.querySelector(".tile");
    if (tile) {
      // Not by its rectangle, which far down the page is rounded to quarters of a pixel: over thousands of rows that is
      // more than a screen. Rows of whole pixels add up exactly.
      const height = Math.ceil(parseFloat(getComputedStyle(tile).height) + 0.1);
      this.pitch = height + parseFloat(style.rowGap);
      this.gallery.style.gridAutoRows = `${height}px`;
    }
    this.pitch ||= 250;
    const rows = Math.floor(MAX_HEIGHT / this.pitch);
    this.span = Math.max(1, Math.floor((rows * this.columns) / this.size));
    if (this.pageCount <= this.span) this.origin = 0;
  }

  get pageCount() {
    return this.starts ? this.starts.length : Math.ceil(this.total / this.size);
  }

  // First row of a page, counted from where the shown part of the gallery begins.
  rowOf(place) {
    return Math.floor(place / this.columns) - Math.floor((this.origin * this.size) / this.columns);
  }

  get lastPage() {
    return Math.min(this.pageCount, this.origin + this.span) - 1;
  }

  topPlace() {
    if (!this.ready) return 0;
    const above = -this.gallery.getBoundingClientRect().top;
    const row = Math.max(0, Math.ceil(above / this.pitch)) + Math.floor((this.origin * this.size) / this.columns);
    return Math.min(row * this.columns, this.total - 1);
  }

  // Places and indices

  indexOf(tile) {
    return Number(tile.dataset.place.split(":")[1]);
  }

  placeOf(tile) {
    for (const [page, tiles] of this.pages) {
      const within = tiles.findIndex((one) => one.id === tile.id);
      if (within >= 0) return page * this.size + within;
    }
    return 0;
  }

  startOf(page) {
    return this.starts ? this.starts[page] : page * this.size;
  }

  pageOfIndex(index) {
    if (!this.starts) return Math.floor(index / this.size);
    let [low, high] = [0, this.starts.length - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.starts[middle] <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  wantedIndex() {
    const hash = location.hash.match(/^#image-(\d+)$/);
    if (hash) return Number(hash[1]);
    return this.gallery.dataset.at === undefined ? null : Number(this.gallery.dataset.at);
  }

  // All that the gallery shows, as places of a selection.
  async ranges() {
    const job = this.gallery.dataset.base.split("/").at(-1);
    if (!this.starts) return Array.from({ length: this.total }, (_, index) => `${job}:${index}`);
    const places = [];
    let after = "";
    do {
      const query = new URLSearchParams([...this.filter].filter(([name]) => FILTER.includes(name)));
      query.set("limit", "500");
      if (after !== "") query.set("after", after);
      const answer = await fetch(`/api/v1/jobs/${job}/images?${query}`);
      const { images, next } = await answer.json();
      places.push(...images.map((image) => `${job}:${image.index}`));
      after = next;
    } while (after !== null);
    return places;
  }

  // Moving

  async goToIndex(index) {
    const page = this.pageOfIndex(index);
    await this.go(page * this.size);
    const tiles = this.pages.get(page) ?? [];
    const within = Math.max(0, tiles.findIndex((tile) => this.indexOf(tile) >= index));
    await this.go(page * this.size + within, { focus: true });
  }

  async go(place, { focus = false } = {}) {
    if (!this.ready || !(place >= 0)) return;
    const target = Math.min(place, this.total - 1);
    const page = Math.floor(target / this.size);
    this.measure();
    if (page < this.origin || page > this.lastPage) this.moveOrigin(page);
    const tile = this.tileAt(target);
    if (tile && focus) {
      tile.scrollIntoView({ block: "nearest" });
    } else {
      const top = this.gallery.getBoundingClientRect().top + scrollY;
      scrollTo({ top: top + this.rowOf(target) * this.pitch - innerHeight / 4, behavior: "instant" });
    }
    await this.update();
    if (!focus) return;
    this.tileAt(target)?.scrollIntoView({ block: "nearest" });
    this.tileAt(target)?.querySelector("a").focus({ preventScroll: true });
  }

  tileAt(place) {
    const page = Math.floor(place / this.size);
    return this.pages.get(page)?.[place - page * this.size];
  }

  moveOrigin(page) {
    const most = Math.max(0, this.pageCount - this.span);
    this.origin = Math.min(most, Math.max(0, page - Math.floor(this.span / 2)));
    this.lay();
  }

  remember(tile) {
    const address = new URL(location.href);
    for (const name of ["after", "number"]) address.searchParams.delete(name);
    address.searchParams.set("at", this.indexOf(tile));
    address.hash = tile.id;
    history.replaceState(null, "", address);
  }

  soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.update();
    });
  }

  // Brings in the pages that can be seen, and takes out those far off. One run at a time; who asks meanwhile is served by
  // another round of it, and waits for that.
  update() {
    if (!this.ready) return Promise.resolve();
    this.again = true;
    this.running ??= this.run().finally(() => {
      this.running = null;
      this.gallery.removeAttribute("aria-busy");
    });
    return this.running;
  }

  async run() {
    let waited = 0;
    while (this.again) {
      this.again = false;
      this.measure();
      let [first, last] = this.visiblePages();
      if (this.pageCount > this.span && this.nearEdge(first, last)) {
        this.shift(first);
        [first, last] = this.visiblePages();
      }
      const low = Math.max(this.origin, first - MARGIN);
      const high = Math.min(this.lastPage, last + MARGIN);
      const missing = [];
      for (let number = low; number <= high; number += 1) if (!this.pages.has(number)) missing.push(number);
      if (missing.some((number) => number >= first && number <= last) && waited < MOST_SETTLES) {
        this.gallery.setAttribute("aria-busy", "true");
        await new Promise((resolve) => setTimeout(resolve, SETTLE_MILLISECONDS));
        waited += 1;
        if (this.again) continue;
      }
      waited = 0;
      const fetched = await Promise.all(missing.map(async (number) => [number, await this.fetch(number)]));
      for (const [number, tiles] of fetched) if (tiles) this.pages.set(number, tiles);
      // Pages in the document follow one another: what lies beyond a gap goes.
      for (const number of [...this.pages.keys()]) {
        if (number < low - MARGIN || number > high + MARGIN || this.gapBetween(number, low, high)) this.drop(number);
      }
      this.lay();
    }
  }

  visiblePages() {
    const top = -this.gallery.getBoundingClientRect().top;
    const firstRow = Math.max(0, Math.floor(top / this.pitch)) + Math.floor((this.origin * this.size) / this.columns);
    const rows = Math.ceil(innerHeight / this.pitch) + 1;
    const pageOf = (place) => Math.min(this.lastPage, Math.max(this.origin, Math.floor(place / this.size)));
    return [pageOf(firstRow * this.columns), pageOf((firstRow + rows) * this.columns)];
  }

  gapBetween(number, low, high) {
    for (let between = number; between < low; between += 1) if (!this.pages.has(between)) return true;
    for (let between = number; between > high; between -= 1) if (!this.pages.has(between)) return true;
    return false;
  }

  nearEdge(first, last) {
    return (first <= this.origin && this.origin > 0) || (last >= this.lastPage && this.lastPage < this.pageCount - 1);
  }

  shift(page) {
    const before = this.rowOf(page * this.size);
    this.moveOrigin(page);
    scrollBy({ top: (this.rowOf(page * this.size) - before) * this.pitch, behavior: "instant" });
  }

  async fetch(page) {
    const query = new URLSearchParams(this.filter);
    const start = this.startOf(page);
    if (start > 0) query.set("after", start - 1);
    const answer = await fetch(`${this.gallery.dataset.base}/fragments/images?${query}`);
    if (!answer.ok) return null;
    const part = document.createElement("template");
    part.innerHTML = await answer.text();
    const end = this.starts ? (this.starts[page + 1] ?? Infinity) : start + this.size;
    return [...part.content.querySelectorAll(".tile")].filter((tile) => this.indexOf(tile) < end);
  }

  drop(page) {
    for (const tile of this.pages.get(page)) document.getElementById(tile.id)?.remove();
    this.pages.delete(page);
  }

  async reload() {
    for (const page of [...this.pages.keys()]) {
      const tiles = await this.fetch(page);
      if (!tiles || !this.pages.has(page)) continue;
      const focused = document.activeElement?.closest(".tile")?.id;
      this.drop(page);
      this.pages.set(page, tiles);
      this.lay();
      if (focused) document.getElementById(focused)?.querySelector("a").focus({ preventScroll: true });
    }
  }

  // Puts the pages' tiles in order, and padding in place of all others.
  lay() {
    const numbers = [...this.pages.keys()].sort((a, b) => a - b);
    let before = null;
    for (const number of numbers) {
      // htmx may have replaced a tile.
      const tiles = this.pages.get(number).map((tile) => document.getElementById(tile.id) ?? tile);
      this.pages.set(number, tiles);
      if (!tiles.length) continue;
      if (!tiles[0].isConnected) {
        const follower = before ? before.nextSibling : this.gallery.firstChild;
        const part = document.createDocumentFragment();
        part.append(...tiles);
        this.gallery.insertBefore(part, follower);
        this.onShown(tiles);
      }
      before = tiles.at(-1);
    }
    for (const tile of this.gallery.querySelectorAll("[data-start]")) delete tile.dataset.start;
    const [first, last] = [numbers[0] ?? this.origin, numbers.at(-1) ?? this.origin - 1];
    const column = (first * this.size) % this.columns;
    const firstTile = this.pages.get(first)?.[0];
    // Not by its style: htmx copies style attributes, which the content security policy forbids.
    if (firstTile && column) firstTile.dataset.start = column + 1;
    const end = Math.min(this.total, (this.lastPage + 1) * this.size);
    const shown = Math.min(this.total, (last + 1) * this.size);
    const below = Math.ceil(end / this.columns) - Math.ceil(shown / this.columns);
    this.gallery.style.paddingTop = `${Math.max(0, this.rowOf(first * this.size)) * this.pitch}px`;
    this.gallery.style.paddingBottom = `${Math.max(0, below) * this.pitch}px`;
    const lastTile = this.pages.get(last)?.at(-1);
    if (lastTile) this.more.querySelector("input").value = this.indexOf(lastTile) + 1;
    if (this.more !== this.gallery.lastElementChild) this.gallery.append(this.more);
  }
}
