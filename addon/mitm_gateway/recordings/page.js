"use strict";
const articles = [...document.querySelectorAll("article")];
const box = document.getElementById("search");
const count = document.getElementById("count");
const MOST_MARKS = 2000;
let timer = 0;

function setOpen(open) {
  for (const each of document.querySelectorAll("article:not([hidden]) details")) each.open = open;
}

function mark(words, shown) {
  if (!CSS.highlights) return;
  const ranges = [];
  for (const article of words ? shown : []) {
    const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node && ranges.length < MOST_MARKS; node = walker.nextNode()) {
      const text = node.data.toLowerCase();
      for (let at = text.indexOf(words); at >= 0; at = text.indexOf(words, at + words.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, Math.min(at + words.length, node.length));
        ranges.push(range);
      }
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

function search() {
  const words = box.value.trim().toLowerCase();
  const has = (element) => element.textContent.toLowerCase().includes(words);
  for (const article of articles) {
    article.hidden = words !== "" && !has(article);
    if (words === "" || article.hidden) continue;
    for (const each of article.querySelectorAll("details")) if (has(each)) each.open = true;
  }
  const shown = articles.filter((article) => !article.hidden);
  count.textContent = words ? `${shown.length} of ${articles.length}` : "";
  mark(words, shown);
}

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  for (let each = target; each; each = each.parentElement) {
    if (each.tagName === "DETAILS") each.open = true;
    if (each.tagName === "ARTICLE") each.hidden = false;
  }
  if (!target) return;
  for (const each of target.querySelectorAll("details")) { each.open = true; break; }
  target.scrollIntoView();
}

box.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 150); });
document.getElementById("open").addEventListener("click", () => setOpen(true));
document.getElementById("close").addEventListener("click", () => setOpen(false));
addEventListener("hashchange", openTarget);
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("article:not([hidden]) details:not([open])")];
  for (const each of closed) each.open = true;
});
addEventListener("afterprint", () => { for (const each of closed) each.open = false; });
openTarget();
