// Pictures that can be seen while they are denoised: shown in their tiles, and on their own page, as they come.
function seen(element) {
  const box = element.getBoundingClientRect();
  return box.bottom > 0 && box.top < innerHeight;
}

async function show(place, address) {
  const picture = new Image();
  picture.className = "preview";
  picture.alt = "";
  picture.src = address;
  try {
    await picture.decode();
  } catch {
    return; // It is finished by now, or a new one is on its way.
  }
  if (!place.isConnected) return;
  place.querySelector(".preview")?.remove();
  place.prepend(picture);
}

document.addEventListener("farm:previews", (event) => {
  const { job, at, images } = event.detail;
  for (const index of images) {
    const place = document.querySelector(`#image-${index}.pending a, [data-preview="${index}"]`);
    if (place && seen(place)) show(place, `/api/v1/jobs/${job}/images/${index}/preview?at=${at}`);
  }
});
