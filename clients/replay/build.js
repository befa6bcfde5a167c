#!/usr/bin/env node
/* Builds the page of the course: `node build.js [FOLDER]`, by default build/page at the top.
 *
 * The Markdown stays where it is, the page has the same folders: step6_epoll/README.md becomes
 * step6_epoll/index.html. It opens from a file and fetches nothing. */
"use strict";

const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { Marked } = require("marked");

const HERE = __dirname;
const ROOT = path.resolve(HERE, "../..");
const OUT = path.resolve(process.argv[2] || path.join(ROOT, "build/page"));
const RESULTS = [path.join(ROOT, "build/bench/results.json"), path.join(ROOT, "clients/bench/results.json")];
const SCRIPTS = ["model.js", "view.js", "search.js"];

const read = file => fs.readFileSync(path.join(ROOT, file), "utf8");
const escape = text => text.replace(/[&<>"]/g, c => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

function write(file, text) {
    const target = path.join(OUT, file);
    fs.mkdirSync(path.dirname(target), { recursive: true });
    fs.writeFileSync(target, text);
}

/** All Markdown of the course, in the order of reading. */
function markdown() {
    const found = [];
    const visit = folder => {
        for (const entry of fs.readdirSync(path.join(ROOT, folder), { withFileTypes: true })) {
            const name = path.posix.join(folder, entry.name);
            if (entry.isDirectory() && !/^(\..*|build|node_modules|recordings|tests)$/.test(entry.name)) visit(name);
            else if (entry.name.endsWith(".md")) found.push(name);
        }
    };
    visit("");
    const rank = name => (name === "README.md" ? "0" : /^step/.test(name) ? "1" : name.startsWith("common/lessons") ? "2" : "3") +
        path.posix.dirname(name) + (name.endsWith("README.md") ? "0" : "1" + name);
    return found.sort((a, b) => rank(a) < rank(b) ? -1 : 1);
}

const pageOf = file => file.replace(/README\.md$/, "index.html").replace(/\.md$/, ".html");

/** The name GitHub gives a heading, so that links to it work in both places. */
function slug(text, taken) {
    const base = text.toLowerCase().replace(/<[^>]*>/g, "").replace(/[^\p{L}\p{N}\s_-]/gu, "").trim().replace(/\s/g, "-");
    let name = base;
    for (let i = 1; taken.has(name); i++) name = `${base}-${i}`;
    taken.add(name);
    return name;
}

const sources = new Set();      // files that a page links to: they get pages of their own

function render(file) {
    const taken = new Set(), sections = [];
    const folder = path.posix.dirname(file);
    let title = "";
    const renderer = {
        heading({ tokens, depth }) {
            const html = this.parser.parseInline(tokens), text = html.replace(/<[^>]*>/g, "");
            const id = slug(text.replaceAll("&amp;", "&").replaceAll("&#39;", "'").replaceAll("&quot;", '"'), taken);
            title = title || text;
            sections.push({ id, title: text, text: "" });
            return `<h${depth} id="${id}">${html}</h${depth}>\n`;
        },
        code({ text, lang }) {
            return `<pre tabindex="0"${lang ? ` class="${escape(lang)}"` : ""}><code>${escape(text)}</code></pre>\n`;
        },
        link({ href, tokens }) {
            return `<a href="${escape(target(href, folder))}">${this.parser.parseInline(tokens)}</a>`;
        },
        image({ href, text }) {
            const from = path.posix.join(folder, href);
            if (fs.existsSync(path.join(ROOT, from))) {
                fs.mkdirSync(path.dirname(path.join(OUT, from)), { recursive: true });
                fs.copyFileSync(path.join(ROOT, from), path.join(OUT, from));
            }
            return `<span class="picture" tabindex="0" role="group" aria-label="Picture"><img src="${escape(href)}" alt="${escape(text)}"></span>`;
        },
    };
    const marked = new Marked({ gfm: true });
    marked.use({ renderer });
    let html = marked.parse(read(file));
    html = html.replaceAll("<table>", '<div class="table" tabindex="0" role="group" aria-label="Table"><table>').replaceAll("</table>", "</table></div>");
    for (const part of html.split(/(?=<h[1-6] id=)/)) {
        const id = /^<h\d id="([^"]*)"/.exec(part)?.[1];
        const section = sections.find(each => each.id === id);
        if (section) section.text = part.replace(/<[^>]*>/g, " ").replace(/\s+/g, " ").slice(0, 1500);
    }
    return { file, url: pageOf(file), title, html, sections };
}

/** Where a link of the Markdown leads in the page. */
function target(href, folder) {
    if (/^[a-z]+:/.test(href) || href.startsWith("#")) return href;
    const [name, fragment] = href.split("#");
    let file = path.posix.normalize(path.posix.join(folder, name));
    const full = path.join(ROOT, file);
    if (fs.existsSync(full) && fs.statSync(full).isDirectory()) {
        const readme = path.posix.join(file, "README.md");
        if (!fs.existsSync(path.join(ROOT, readme))) {
            sources.add(path.posix.join(file, "/"));
            return path.posix.relative(folder, path.posix.join(file, "index.html"));
        }
        file = readme;
    }
    if (!fs.existsSync(path.join(ROOT, file))) return href;
    let page = pageOf(file);
    if (!file.endsWith(".md")) {
        sources.add(file);
        page = `${file}.html`;
    }
    return path.posix.relative(folder, page) + (fragment ? `#${fragment}` : "");
}

function layout({ url, title, html, runs }, pages) {
    const base = "../".repeat(url.split("/").length - 1);
    const steps = pages.filter(page => /^step\d+_\w+\/index\.html$/.test(page.url));
    const folder = url.split("/")[0];
    const link = (to, text, here) => `<a href="${base}${to}"${here ? ' aria-current="page"' : ""}>${escape(text)}</a>`;
    const others = [["replay.html", "Replay"], ["charts.html", "Charts"], ["common/lessons/index.html", "Lessons"], ["clients/index.html", "Clients"]]
        .filter(([to]) => /^(replay|charts)/.test(to) || pages.some(page => page.url === to));
    const nav = [...steps.map(page => {
        const [, number, name] = /^step(\d+)_(\w+)\//.exec(page.url);
        return link(page.url, `${number} ${name.replaceAll("_", " ")}`, folder === page.url.split("/")[0]);
    }), ...others.map(([to, text]) => link(to, text, url === to))].join("\n");
    const scripts = ["runs.js", "search-index.js", ...SCRIPTS].map(name => `<script src="${base}${name}"></script>`).join("\n");
    return `<!doctype html>
<html lang="en" data-base="${base}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title.replace(/<[^>]*>/g, ""))} - Eight echo servers</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${base}style.css">
${scripts}
</head>
<body>
<a class="skip" href="#main">To the text</a>
<header class="bar">
<a class="home" href="${base}index.html">Eight echo servers</a>
<nav aria-label="Steps">
${nav}
</nav>
<div class="search" role="search"><label>Search <kbd>/</kbd> <input type="search" aria-label="Search the course"></label><ol></ol></div>
</header>
<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>
<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="1.6" height="5" style="fill:var(--wait)"/></pattern>
</defs></svg>
<main id="main">
${html}
</main>
<footer>${runs ? "Recorded runs of the servers in this tree. " : ""}MIT licence.</footer>
</body>
</html>
`;
}

/** The replay stands behind the introduction, in front of the second heading. */
function withStage(page, ids, beside, above = "") {
    const base = "../".repeat(page.url.split("/").length - 1);
    const stage = `${above}<div data-replay="${ids.join(" ")}" data-beside="${beside || ""}" data-base="${base}" role="group" aria-label="Replay of a recorded run"><p>The replay needs JavaScript.</p></div>\n`;
    const second = page.html.indexOf("<h2");
    const at = second < 0 ? page.html.length : second;
    return { ...page, runs: true, html: page.html.slice(0, at) + stage + page.html.slice(at) };
}

/** What a run is called: step 6, edge-triggered. */
function label({ server, source, own }) {
    if (own) return `Your server, ${path.basename(source)}`;
    const [word, ...options] = server.split(" "), [step, ...rest] = word.split("/");
    const folder = fs.readdirSync(ROOT).find(name => name.startsWith(`step${step}_`));
    const words = folder.replace(/^step\d+_/, "").replaceAll("_", " ");
    const name = rest[rest.length - 1];
    const standIn = /kqueue/.test(name) ? " (on a stand-in for kqueue)" : "";
    return `Step ${step}, ${name || words}${standIn}${options.length ? ` (${options.join(" ").replaceAll("--", "")})` : ""}`;
}

/** The source may have changed a little since: find each line again by its text. */
function follow(recording, text) {
    const lines = text.split("\n").map(line => line.trim());
    let lost = 0;
    for (const place of recording.places) {
        if (place[0] !== recording.source || lines[place[1] - 1] === place[3]) continue;
        const same = lines.map((line, index) => [index + 1, line]).filter(([, line]) => line === place[3]);
        if (!same.length) { lost++; continue; }
        place[1] = same.sort((a, b) => Math.abs(a[0] - place[1]) - Math.abs(b[0] - place[1]))[0][0];
    }
    return lost;
}

function recordings() {
    const files = [path.join(HERE, "recordings"), path.join(ROOT, "build/recordings")].filter(fs.existsSync)
        .flatMap(folder => fs.readdirSync(folder).map(name => path.join(folder, name)));
    return files.filter(file => file.endsWith(".json")).map(file => {
        const recording = JSON.parse(fs.readFileSync(file, "utf8")), name = path.basename(file);
        recording.id = name.replace(/\.json$/, "");
        recording.own = "text" in recording;
        recording.label = label(recording);
        recording.text = (recording.text || read(recording.source)).replace(/\n$/, "");
        const lost = follow(recording, recording.text);
        if (lost) console.error(`${name}: ${lost} lines of ${recording.source} have changed: make record`);
        return recording;
    }).sort((a, b) => (a.scene === "five" ? 0 : 1) - (b.scene === "five" ? 0 : 1) ||
        a.server.localeCompare(b.server, "en", { numeric: true }));
}

/** The calls in the format of `strace -f -ttt -T`, which Perfetto's viewer opens. */
function straceText(recording) {
    const task = number => 1000 + number, time = at => (1e9 + at / 1e6).toFixed(6);
    return recording.calls.filter(call => call[2] !== null).map(call =>
        `${task(call[0])} ${time(call[1])} ${call[4]} = ${call[5]} <${((call[2] - call[1]) / 1e6).toFixed(6)}>\n`).join("");
}

// Which charts there are, in the order of reading, and what to look at.
const CHARTS = [
    ["costs", "An idle connection", "Ten clients send, the others are idle. select and poll look at every connection for each message. epoll does not."],
    ["idle", "Cost among idle connections", "The same in all points that were measured. A line that ends early is a server that takes no more connections."],
    ["throughput", "Cost by connections", "All connections send. What grows is the price of a connection that has something to say."],
    ["latency", "Latency by connections", "With more connections each message waits for more others."],
    ["memory", "Memory", "What idle connections occupy in the server: a stack for each thread, an object for each client in a loop."],
    ["interval", "The polling dilemma", "Step 4 sleeps for a fixed interval between two rounds. A short one costs processor time, a long one delays each answer."],
    ["calls", "The price of a system call", "Each call is made slower by filters. io_uring makes fewer calls, so its line rises less."],
];

/** What make bench has measured: the latest results of this tree, else those that are committed. */
function charts() {
    const folder = path.join(OUT, "charts");
    fs.mkdirSync(folder, { recursive: true });
    const results = [process.env.RESULTS, ...RESULTS].find(file => file && fs.existsSync(file));
    if (results) execFileSync("python3", [path.join(HERE, "charts.py"), results, folder], { stdio: "inherit" });
    const costs = path.join(HERE, "pictures/costs.svg");
    if (fs.existsSync(costs)) fs.copyFileSync(costs, path.join(folder, "costs.svg"));
    const drawn = fs.readdirSync(folder).sort();
    const title = name => escape(/<title>(.*?)<\/title>/.exec(fs.readFileSync(path.join(folder, name), "utf8"))[1]);
    const sections = CHARTS.map(([name, heading, words]) => [heading, words, drawn.filter(file => file.replace(/(-\d+)?\.svg$/, "") === name)])
        .filter(([, , files]) => files.length);
    return {
        url: "charts.html", file: "", title: "Charts", sections: [{ id: "", title: "Charts", text: sections.map(([heading]) => heading).join(", ") }],
        html: "<h1>What the servers cost</h1>\n<p>Measured by <code>make bench</code>, on the machine and the day that each chart names.</p>\n" +
            sections.map(([heading, words, files]) => `<h2>${escape(heading)}</h2>\n<p>${escape(words)}</p>\n<div class="charts">` +
                files.map(name => `<figure><img src="charts/${name}" alt="${title(name)}"></figure>`).join("\n") + "</div>").join("\n"),
    };
}

function main() {
    fs.rmSync(OUT, { recursive: true, force: true });
    const all = recordings();
    for (const recording of all) {
        write(`recordings/${recording.id}.js`, `(window.RECORDINGS = window.RECORDINGS || {})[${JSON.stringify(recording.id)}] = ${JSON.stringify(recording)};\n`);
        write(`recordings/${recording.id}.strace`, straceText(recording));
    }
    write("runs.js", `window.RUNS = ${JSON.stringify(all.map(({ id, label: name, title, scene }) =>
        ({ id, name: scene === "five" ? name : `${name}: ${title}` })))};\n`);
    for (const name of SCRIPTS) write(name, fs.readFileSync(path.join(HERE, "page", name), "utf8"));
    write("style.css", fs.readFileSync(path.join(HERE, "page/style.css"), "utf8"));

    let pages = markdown().map(render);
    pages = pages.map(page => {
        const [, folder, part] = /^(step\d+_\w+)\/(?:(\w+)\/)?index\.html$/.exec(page.url) || [];
        if (!folder) return page;
        const ids = all.filter(recording => recording.source.startsWith(`${folder}/`) &&
            (part ? recording.source.startsWith(`${folder}/${part}/`) : !recording.source.includes("/demos/"))).map(recording => recording.id);
        const [, step] = /^step(\d+)/.exec(folder), before = step - 1;
        const beside = part || before < 1 ? "" : ` <a href="../replay.html#replay=${before}-five+${step}-five">Beside step ${before}</a>.`;
        return ids.length ? withStage(page, ids, "", '<h2 id="replay">A recorded run, call by call</h2>\n' +
            `<p>Press Play, or drag in the lanes. Below them: the call at that moment, the line that made it, and the state of all.${beside}</p>\n`) : page;
    });
    const pair = (a, b, words) => `<li><a href="#replay=${a}+${b}">${words}</a></li>`;
    pages.push(withStage({
        url: "replay.html", file: "", title: "Replay", sections: [{ id: "", title: "Replay", text: "recorded runs side by side" }],
        html: "<h1>Two servers on one time axis</h1>\n<p>Choose any two runs below, or one of these pairs. " +
            "All were recorded with strace; nothing here is simulated.</p>\n<ul>" +
            pair("1-five", "2-five", "1 and 2: one client after the other, or a thread for each") +
            pair("4-five", "5-five", "4 and 5: ask each client again and again, or sleep until one is ready") +
            pair("5-five", "6-five", "5 and 6: give the kernel all descriptors each time, or let it keep the list") +
            pair("6-edge_wrong-edge", "6-edge-edge", "Edge-triggered: read once and lose bytes, or read until EAGAIN") +
            pair("8-slow_command-mode-block-slow-command", "8-slow_command-mode-worker-slow-command",
                "A slow command: in the callback, or in another process") +
            pair("1-idle", "6-idle", "One idle client among five: it delays all, or nobody") + "</ul>\n",
    }, ["5-five", "6-five"], "6-five"));
    pages.push(charts());
    for (const page of pages) write(page.url, layout(page, pages));
    for (const recording of all) if (!recording.own) sources.add(recording.source);
    for (const file of sources) {   // a folder that is linked to adds its files
        const full = path.join(ROOT, file), url = file.endsWith("/") ? `${file}index.html` : `${file}.html`;
        let html = `<h1>${escape(file)}</h1>\n`;
        if (file.endsWith("/")) {
            const names = fs.readdirSync(full).filter(name => fs.statSync(path.join(full, name)).isFile()).sort();
            for (const name of names) sources.add(file + name);
            html += `<ul>${names.map(name => `<li><a href="${escape(name)}.html">${escape(name)}</a></li>`).join("")}</ul>`;
        } else {
            html += `<pre tabindex="0"><code>${escape(read(file))}</code></pre>`;
        }
        write(url, layout({ url, title: file, html }, pages));
    }
    write("search-index.js", `window.SEARCH = ${JSON.stringify(pages.flatMap(page => page.sections.map(section =>
        ({ page: page.title, title: section.title, url: page.url + (section.id ? `#${section.id}` : ""), text: section.text }))))};\n`);
    console.log(`${path.relative(process.cwd(), OUT)}/index.html: ${pages.length} pages, ${all.length} recordings`);
}

main();
