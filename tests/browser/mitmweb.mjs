// Drives mitmweb in Chromium: the flow and its comment, both views, a replay. Prints what it saw as JSON.
// node mitmweb.mjs PLAYWRIGHT CHROMIUM URL [FOLDER FOR SCREENSHOTS]
import { createRequire } from "node:module";

const [playwright, executablePath, url, folder] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1400, height: 960 } });
page.setDefaultTimeout(60000);

async function shoot(name, height) {
  if (!folder) return;
  await page.setViewportSize({ width: 1400, height });
  await page.screenshot({ path: `${folder}/${name}.png` });
}

async function chooseView(current, wanted) {
  await page.getByText(`View: ${current}`, { exact: false }).first().click();
  await page.locator("a, button, li").getByText(wanted, { exact: true }).first().click();
}

async function content(text) {
  const shown = page.locator(".contentview, .flow-detail").filter({ hasText: text }).first();
  await shown.waitFor();
  return shown.innerText();
}

try {
  await page.goto(url);
  const row = page.locator("tr", { hasText: "/v1/messages" }).filter({ hasText: /gateway: .*200, / }).first();
  await row.waitFor();
  const seen = { row: await row.innerText() };
  await row.click();
  await page.getByText("Request", { exact: true }).first().click();
  seen.request = await content("user:");
  await page.getByText("Response", { exact: true }).first().click();
  seen.response = await content("assistant:");
  await shoot("llm", 540);
  await chooseView("", "gateway");
  seen.gateway = await content("rule:");
  await shoot("gateway", 960);
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
