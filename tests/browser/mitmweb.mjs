// Drives mitmweb in Chromium: the list, the last turn of a session in both views, a replay. Prints what it saw as JSON.
// node mitmweb.mjs PLAYWRIGHT CHROMIUM URL TURNS [FOLDER FOR SCREENSHOTS]
import { createRequire } from "node:module";

const [playwright, executablePath, url, turns, folder] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1400, height: 960 }, deviceScaleFactor: 1.5 });
page.setDefaultTimeout(60000);

// A picture of the list, or of the pane beside it: from the last line that begins like this on, up to another text.
// Prompts that a client brings along are not ours to show.
async function shoot(name, height, from, to, above = 8) {
  if (!folder) return;
  let box = { x: 0, y: 0, width: 1000, height };
  await page.setViewportSize({ width: from ? 1700 : 1000, height: from ? 1100 : height });
  if (from) {
    const pane = page.locator(".flow-detail");
    const start = pane.getByText(from).last();
    await start.evaluate((each) => each.scrollIntoView({ block: "center" }));
    const { x, width } = await pane.boundingBox();
    const { y } = await start.boundingBox();
    const end = to ? (await pane.getByText(to).first().boundingBox()).y : y + height;
    box = { x: x + 12, y: y - above, width: Math.min(width - 24, 900), height: Math.min(end - y, height) };
  }
  await page.screenshot({ path: `${folder}/${name}.png`, clip: box });
}

async function chooseView(wanted) {
  await page.getByText("View: ", { exact: false }).first().click();
  await page.locator("a, button, li").getByText(wanted, { exact: true }).first().click();
}

// What is rendered: mitmweb shows an excerpt until it is asked for more.
async function content(text) {
  const shown = page.locator(".contentview, .flow-detail").filter({ hasText: text }).first();
  await shown.waitFor();
  return shown.innerText();
}

try {
  await page.goto(url);
  const rows = page.locator("tr", { hasText: "/v1/messages" }).filter({ hasText: /gateway: .*200, / });
  await rows.nth(Number(turns) - 1).waitFor();
  const seen = { rows: await rows.allInnerTexts() };
  await shoot("list", 320);
  await rows.nth(Number(turns) - 1).click();
  await page.getByText("Request", { exact: true }).first().click();
  seen.request = await content("user:");
  await shoot("difference", 400, "since the request before", "system (");
  await shoot("llm", 300, "tool call Read toolu_0", null, 26);
  await page.getByText("Response", { exact: true }).first().click();
  seen.response = await content("assistant:");
  await chooseView("gateway");
  seen.gateway = await content("rule:");
  await shoot("gateway", 520, "rule:");
  await page.getByText("Flow", { exact: true }).first().click();
  // The page may close only when mitmweb has taken the replay.
  const taken = page.waitForResponse((response) => response.url().endsWith("/replay") && response.ok());
  await page.getByText("Replay", { exact: true }).first().click();
  await taken;
  console.log(JSON.stringify(seen));
} catch (fault) {
  if (folder) await page.screenshot({ path: `${folder}/failed.png` });
  throw fault;
} finally {
  await browser.close();
}
