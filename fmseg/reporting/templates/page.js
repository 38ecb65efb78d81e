"use strict";
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), row = head.parentElement, body = head.closest("table").tBodies[0];
    const index = [...row.children].indexOf(head);
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of row.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (line) => line.children[index].dataset.value ?? line.children[index].textContent;
    const isNumber = head.classList.contains("number");
    const order = (a, b) => {
      const x = key(a), y = key(b);
      if (!isNumber) return x.localeCompare(y, undefined, { numeric: true });
      // what has no value comes last, whichever way
      if (x === "" || y === "") return (x === "") === (y === "") ? 0 : (x === "" ? 1 : -1) * (up ? 1 : -1);
      return x - y;
    };
    body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
  });
}
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-10% 0px -75% 0px" });
for (const section of document.querySelectorAll("section")) watch.observe(section);
