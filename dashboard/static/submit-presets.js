// Presets without leaving the page: what was typed as prompts stays when one is saved, deleted or loaded.
const NOT_KEPT = new Set([
  "prompts", "format", "file", "inputs", "name", "column", "columns_for", "preset_name", "preset_shared", "first",
]);

export function watchPresets(form, done) {
  form.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-fragment=presets]");
    const link = event.target.closest("[data-preset]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      await load(form, link);
      done();
    } else if (button) {
      event.preventDefault();
      await change(form, button);
    }
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.target.id !== "preset_name") return;
    event.preventDefault();
    document.querySelector("#presets button[formaction$='/presets']").click();
  });
}

async function change(form, button) {
  const body = new FormData(form);
  for (const name of [...new Set(body.keys())]) if (name === "file" || name.endsWith("_file")) body.delete(name);
  const response = await fetch(button.formAction, { method: "POST", body, headers: { "HX-Request": "true" } });
  if (response.ok || response.status === 422) {
    document.getElementById("presets").outerHTML = await response.text();
    document.getElementById("preset_name").focus();
  } else {
    tell(`This did not work (${response.status}).`);
  }
}

async function load(form, link) {
  const response = await fetch(form.dataset.presets);
  const { presets } = await response.json();
  const preset = presets.find((one) => String(one.id) === link.dataset.preset);
  if (!preset) return tell("This preset is not there any more.");
  for (const field of form.elements) {
    if (!field.name || NOT_KEPT.has(field.name) || ["file", "submit", "button"].includes(field.type)) continue;
    const value = preset.fields[field.name];
    if (field instanceof HTMLSelectElement) {
      const given = [...field.options].findIndex((option) => option.value === value);
      const initial = [...field.options].findIndex((option) => option.defaultSelected);
      field.selectedIndex = given >= 0 ? given : Math.max(initial, 0);
    } else {
      field.value = value ?? "";
    }
    if (value !== undefined) field.closest("details.folded")?.setAttribute("open", "");
  }
  return tell(`Loaded the preset “${preset.name}”.`);
}

function tell(text) {
  document.querySelector("#presets [role=status]").textContent = text;
}
