// Opens a page of `mitm-gateway flows --html` in Chromium, searches it and prints it. Prints what it saw as JSON.
// node page.mjs PLAYWRIGHT CHROMIUM FILE WORDS [FOLDER FOR SCREENSHOTS]
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [playwright, executablePath, file, words, folder] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 1.5 });
page.setDefaultTimeout(30000);
const seen = { requests: [], complaints: [], dialogs: 0 };
page.on("request", (request) => seen.requests.push(request.url()));
page.on("console", (message) => seen.complaints.push(message.text()));
page.on("pageerror", (fault) => seen.complaints.push(String(fault)));
page.on("dialog", (dialog) => { seen.dialogs += 1; dialog.dismiss(); });

try {
  await page.goto(pathToFileURL(file).href);
  seen.articles = await page.locator("article").count();
  seen.folded = await page.locator("article > details:not([open])").count();
  await page.locator("#search").fill(words);
  await page.waitForFunction(() => document.getElementById("count").textContent !== "");
  seen.count = await page.locator("#count").innerText();
  seen.found = await page.locator("article:not([hidden])").allInnerTexts();
  seen.marks = await page.evaluate(() => CSS.highlights.get("found").size);
  if (folder) await page.screenshot({ path: `${folder}/page.png` });
  await page.locator("#search").fill("");
  await page.waitForFunction(() => document.getElementById("count").textContent === "");
  await page.locator("#open").click();
  seen.text = await page.locator("main").textContent();
  seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  seen.elements = await page.locator("main *").evaluateAll((all) => [...new Set(all.map((each) => each.tagName))]);
  seen.hit = await page.evaluate(() => String(window.hit));
  await page.locator("#close").click();
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
  seen.closedInPrint = await page.locator("details:not([open])").count();
  const colours = async () => page.evaluate(() => getComputedStyle(document.querySelector("header")).backgroundColor);
  await page.emulateMedia({ colorScheme: "light" });
  seen.light = await colours();
  await page.emulateMedia({ colorScheme: "dark" });
  seen.dark = await colours();
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
