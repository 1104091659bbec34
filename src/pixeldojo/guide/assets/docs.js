"use strict";

// The page is whole without this: it adds tabs, copy buttons, and marks where the reader is.

const told = document.querySelector(".told");

function say(text) {
  told.textContent = "";
  requestAnimationFrame(() => (told.textContent = text));
}

async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(await text());
    button.textContent = "Copied";
  } catch {
    button.textContent = "Can't copy";
  }
  say(button.textContent);
  setTimeout(() => (button.textContent = before), 1500);
}

for (const block of document.querySelectorAll(".code")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  const code = block.querySelector("code");
  button.setAttribute("aria-label", `Copy: ${block.querySelector("pre").getAttribute("aria-label")}`);
  button.addEventListener("click", () => copy(button, async () => code.textContent));
  block.classList.add("has-copy");
  block.append(button);
}

for (const button of document.querySelectorAll("[data-copy-from]")) {
  button.hidden = false;
  button.addEventListener("click", () =>
    copy(button, async () => {
      const answer = await fetch(button.dataset.copyFrom);
      if (!answer.ok) throw new Error(String(answer.status));
      return answer.text();
    }),
  );
}

// One choice of language for the whole page, remembered.
const groups = [];

function remembered() {
  try {
    return localStorage.getItem("language");
  } catch {
    return null;
  }
}

function choose(language, { keep = true } = {}) {
  if (keep) {
    try {
      localStorage.setItem("language", language);
    } catch {
      // private windows may have no storage
    }
  }
  for (const group of groups) {
    const chosen = group.some(({ id }) => id === language) ? language : group[0].id;
    for (const { id, tab, panel } of group) {
      const on = id === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      panel.hidden = !on;
    }
  }
}

for (const [number, box] of document.querySelectorAll(".tabs").entries()) {
  const panels = [...box.querySelectorAll("[data-tab]")];
  const caption = box.querySelector(".caption");
  if (panels.length < 2) continue;
  const list = document.createElement("div");
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", caption.textContent);
  const group = panels.map((panel) => {
    const id = panel.dataset.tab;
    const tab = document.createElement("button");
    tab.type = "button";
    tab.textContent = panel.querySelector(".lang").textContent;
    tab.setAttribute("role", "tab");
    tab.id = `tab-${number}-${id}`;
    panel.id = `panel-${number}-${id}`;
    tab.setAttribute("aria-controls", panel.id);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => {
      const top = box.getBoundingClientRect().top;
      choose(id);
      scrollBy({ top: box.getBoundingClientRect().top - top, behavior: "instant" }); // what is above changed its height
    });
    list.append(tab);
    return { id, tab, panel };
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = group.findIndex(({ tab }) => tab === document.activeElement);
    const to = step ? (at + step + group.length) % group.length : { Home: 0, End: group.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    group[to].tab.click();
    group[to].tab.focus({ preventScroll: true });
  });
  caption.after(list);
  box.classList.add("live");
  groups.push(group);
}
choose(remembered() ?? "curl", { keep: false });

const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
const seen = new Set();
const watch = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target.id);
    const first = [...links.keys()].find((id) => seen.has(id));
    if (!first) return;
    for (const [id, link] of links) {
      if (id === first) link.setAttribute("aria-current", "location");
      else link.removeAttribute("aria-current");
    }
  },
  { rootMargin: "-80px 0px -60% 0px" },
);
for (const section of document.querySelectorAll("main > section[id]")) watch.observe(section);
