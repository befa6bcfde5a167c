/* Looks at the built page in headless Chromium, for test_page.py:
 *
 *     node browser.js CHROMIUM FOLDER PROFILE < question.json > answer.json
 *
 * question: {moments: [[recording, microseconds]], screenshots: folder or null} */
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const { chromium } = require("playwright-core");

const [, , program, folder, profile] = process.argv;
const question = JSON.parse(fs.readFileSync(0, "utf8"));
const address = name => pathToFileURL(path.join(folder, name)).href;
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update"];

/** What a person can read of the first view: runs in the page. */
function readPage() {
    const view = document.querySelector(".view");
    const rows = name => [...view.querySelectorAll(`.${name} tbody tr`)].map(row => [...row.cells].map(cell => cell.textContent));
    const table = name => Object.fromEntries(rows(name).map(([key, value]) => [key, value]));
    const latest = view.querySelector(".source .latest");
    return {
        call: view.querySelector(".call-line").textContent, meaning: view.querySelector(".meaning").textContent,
        clients: Object.fromEntries(rows("now-clients").map(([name, ...cells]) => [name, cells])), kernel: table("now-kernel"), tasks: table("now-tasks"),
        line: latest ? [Number(latest.dataset.line), latest.textContent.trim()] : null,
        classes: latest ? [...latest.classList] : [],
    };
}

async function main() {
    const browser = await chromium.launchPersistentContext(profile, {
        executablePath: program, headless: true, args: FLAGS, viewport: { width: 1300, height: 900 },
    });
    const answer = { requests: [], errors: [], moments: [], axe: {}, screenshots: [] };
    const page = await browser.newPage();
    page.on("request", request => { if (!/^(file|data):/.test(request.url())) answer.requests.push(request.url()); });
    page.on("pageerror", error => answer.errors.push(error.message));
    page.on("console", message => { if (message.type() === "error") answer.errors.push(message.text()); });
    const open = async name => {
        await page.goto(address(name));
        if (await page.locator("[data-replay]").count())
            await page.waitForSelector("[data-ready]", { timeout: 15000 });
    };
    const at = () => page.evaluate(() => document.querySelector(".stage").stage.at);

    // The text at the moments that were asked for
    await open("replay.html");
    let shown = "";
    for (const [id, time] of question.moments) {
        if (id !== shown) await page.evaluate(one => document.querySelector(".stage").stage.choose(one, ""), id);
        shown = id;
        await page.evaluate(when => document.querySelector(".stage").stage.moveTo(when), time);
        answer.moments.push(await page.evaluate(readPage));
    }

    // The table of select's bits: a moment with sets, one before the first, and the same again
    await page.evaluate(() => document.querySelector(".stage").stage.choose("5-five", ""));
    answer.bits = await page.evaluate(() => {
        const { stage } = document.querySelector(".stage"), { model } = stage.views[0];
        return [model.end, model.start, model.end].map(time => {
            stage.moveTo(time);
            return document.querySelectorAll(".bit-table tbody tr").length;
        });
    });

    // What is said where the numbers could surprise: the clock below 0, and descriptor 0
    answer.notes = {};
    for (const id of ["6-five", "7-five"]) {
        await page.evaluate(one => document.querySelector(".stage").stage.choose(one, ""), id);
        answer.notes[id] = await page.evaluate(() => document.querySelector(".keys").textContent + document.querySelector(".now").textContent);
    }

    // By the keyboard alone: reach the stage by Tab, then step, jump, change axis and speed, play
    await open("step6_epoll/index.html");
    await page.keyboard.press("Tab");
    answer.skip = await page.evaluate(() => document.activeElement.className);
    for (let i = 0; i < 60 && !await page.evaluate(() => document.activeElement.type === "range"); i++)
        await page.keyboard.press("Tab");
    const keys = answer.keys = {};
    await page.keyboard.press("Home");
    keys.home = await at();
    for (let i = 0; i < 5; i++) await page.keyboard.press("ArrowRight");
    keys.five = await at();
    await page.keyboard.press("ArrowLeft");
    keys.four = await at();
    await page.keyboard.press("a");
    keys.axis = await page.evaluate(() => document.querySelector(".stage").stage.byCall);
    await page.keyboard.press("+");
    keys.speed = await page.evaluate(() => document.querySelector(".stage").stage.speed);
    await page.keyboard.press("Space");
    await page.waitForFunction(before => document.querySelector(".stage").stage.at > before, keys.four);
    keys.played = await at();
    await page.keyboard.press("Space");
    keys.paused = !await page.evaluate(() => document.querySelector(".stage").stage.playing);
    await page.keyboard.press("End");
    keys.end = await at();
    keys.steps = await page.evaluate(() => document.querySelector(".stage").stage.steps.slice(0, 6));
    keys.last = await page.evaluate(() => document.querySelector(".stage").stage.axis.end);

    // Dragging
    await page.locator(".lane-scroller").first().scrollIntoViewIfNeeded();
    const lanes = await page.locator(".lane-scroller").first().boundingBox();
    await page.mouse.move(lanes.x + 100, lanes.y + 50);
    await page.mouse.down();
    await page.mouse.move(lanes.x + 300, lanes.y + 60);
    await page.mouse.up();
    answer.dragged = await at();

    // The search
    await page.keyboard.press("/");
    await page.keyboard.type("edge-triggered");
    answer.found = await page.locator(".search li").count();

    // Two servers on one axis, chosen by a link
    await open("replay.html");
    answer.two = await page.evaluate(() => document.querySelector(".stage").dataset.ready);
    await page.locator("main li a").first().click();
    await page.waitForFunction(() => document.querySelector(".stage").dataset.ready === "1-five 2-five");
    answer.tops = await page.evaluate(() => [...document.querySelectorAll(".view")].map(view => view.getBoundingClientRect().top));
    answer.axes = await page.evaluate(() => [...document.querySelectorAll(".lanes .cursor")].map(line => line.getAttribute("x1")));

    for (const scheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme: scheme });
        for (const name of ["index.html", "step2_thread_per_client/index.html", "replay.html", "charts.html"]) {
            await open(name);
            await page.evaluate(AXE);
            const found = await page.evaluate(() => globalThis.axe.run(document, { preload: false, resultTypes: ["violations"] }));
            answer.axe[`${scheme} ${name}`] = found.violations.map(each => `${each.id}: ${each.nodes[0].target} ${each.nodes[0].failureSummary}`);
        }
    }

    // No motion for those who ask for none
    await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
    await open("step6_epoll/index.html");
    const before = await at();
    await page.evaluate(() => document.querySelector(".stage").stage.toggle());
    await page.waitForTimeout(400);
    answer.still = await at() === before && await page.evaluate(() => document.getAnimations().length === 0);
    await page.waitForFunction(old => document.querySelector(".stage").stage.at > old, before);
    const jump = await at();
    answer.jumps = await page.evaluate(time => document.querySelector(".stage").stage.steps.includes(time), jump);
    await page.emulateMedia({ reducedMotion: "no-preference" });

    answer.widths = {};
    for (const [width, height] of [[360, 740], [3840, 2160]]) {
        await page.setViewportSize({ width, height });
        for (const name of ["index.html", "step5_select/index.html", "replay.html"]) {
            await open(name);
            answer.widths[`${width} ${name}`] = await page.evaluate(() => document.documentElement.scrollWidth);
        }
        if (question.screenshots)
            await page.screenshot({ path: path.join(question.screenshots, `width-${width}.png`), fullPage: width < 1000 });
    }

    if (question.screenshots) {
        await page.setViewportSize({ width: 1300, height: 1000 });
        for (const name of fs.readdirSync(folder).filter(each => /^step\d/.test(each))) {
            await open(`${name}/index.html`);
            await page.evaluate(() => {
                const { stage } = document.querySelector(".stage");
                stage.moveTo(stage.axis.start + (stage.axis.end - stage.axis.start) * 0.3);
                document.querySelector(".stage").scrollIntoView();
            });
            const file = path.join(question.screenshots, `${name}.png`);
            await page.screenshot({ path: file });
            answer.screenshots.push(file);
        }
    }
    await browser.close();
    process.stdout.write(JSON.stringify(answer));
}

main().catch(error => { console.error(error); process.exit(1); });
