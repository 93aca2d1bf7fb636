// The body of a function that Gradio calls with the picker's `element` and `trigger`. The photo stays in this
// page, so that it can be sent again with other settings; the server keeps nothing.

const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const limit = Number(element.querySelector(".drop").dataset.maxBytes);
let chosen = null; // {photo: base64 or null, size, sample}
let isNew = false; // or the same photo with other settings

function speak(language) {
  root.dataset.language = root.lang = language;
  for (const button of document.querySelectorAll("[data-speak]")) {
    button.setAttribute("aria-pressed", button.dataset.speak === language);
  }
  for (const name of ["alt", "aria-label"]) {
    for (const node of document.querySelectorAll(`[data-${name}-en]`)) {
      node.setAttribute(name, node.getAttribute(`data-${name}-${language}`));
    }
  }
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function take(file) {
  const fits = file.size > 0 && file.size <= limit;
  choose({ photo: fits ? await base64(file) : null, size: file.size, sample: null });
}

function choose(photo) {
  chosen = photo;
  isNew = true;
  send();
  show();
}

function send() {
  if (!chosen) return;
  const ticket = String(Math.random()).slice(2); // randomUUID is for https only
  follow(ticket);
  trigger("segment", {
    ...chosen,
    ticket,
    threshold: Number(byId("threshold").value) / 100,
    crf: byId("crf").checked,
    language: root.dataset.language,
  });
}

// Says how many are before us, until the answer is there.
async function follow(ticket) {
  root.classList.add("looking");
  while (root.classList.contains("looking")) {
    const answer = await fetch(`place/${ticket}`).catch(() => null);
    if (!answer?.ok) return root.classList.remove("looking"); // the server is gone: Gradio says so
    const { ahead } = await answer.json();
    root.classList.toggle("queued", ahead > 0);
    for (const node of document.querySelectorAll(".ahead")) node.textContent = ahead;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function show() {
  // on a phone the result is below what was tapped
  if (innerWidth < 800) byId("result").scrollIntoView({ behavior: "smooth", block: "start" });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-speak], [data-sample]");
  if (!button) return;
  if (button.dataset.speak) return speak(button.dataset.speak);
  choose({ photo: null, size: 0, sample: Number(button.dataset.sample) });
});

// page.py says so, whatever the answer is
document.addEventListener("answered", () => {
  root.classList.remove("looking");
  if (isNew) show();
  isNew = false;
});

document.addEventListener("input", ({ target }) => {
  if (target.id === "threshold") target.parentElement.querySelector("output").value = `${target.value}%`;
});

document.addEventListener("change", ({ target }) => {
  if (target.id === "threshold" || target.id === "crf") return send();
  if (target.type === "file" && target.files.length) {
    take(target.files[0]);
    target.value = ""; // the same photo may be chosen again
  }
});

// a photo that misses the frame by a little is still meant for it, and not to be opened by the browser
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  root.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) root.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  root.classList.remove("dragging");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});

// Chromium and Safari tell touch screens apart here on http too; there `capture` opens the camera
root.classList.toggle("touch", navigator.maxTouchPoints > 0);
speak(navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en");
