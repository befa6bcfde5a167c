/* Finds sections of the course that hold all words of the query, headings first. */
(function (root) {
    "use strict";

    function find(index, query, most = 8) {
        const words = query.toLowerCase().split(/\s+/).filter(Boolean);
        if (!words.length) return [];
        return index.map(entry => {
            const title = `${entry.page} ${entry.title}`.toLowerCase(), text = entry.text.toLowerCase();
            if (!words.every(word => title.includes(word) || text.includes(word))) return [0, entry];
            return [words.reduce((sum, word) => sum + (title.includes(word) ? 10 : 1), 0), entry];
        }).filter(([points]) => points).sort((a, b) => b[0] - a[0]).slice(0, most).map(([, entry]) => entry);
    }

    function start() {
        const input = document.querySelector(".search input"), list = document.querySelector(".search ol");
        if (!input) return;
        const base = document.documentElement.dataset.base;
        const show = () => list.replaceChildren(...find(root.SEARCH || [], input.value).map(entry => {
            const item = document.createElement("li"), link = document.createElement("a"), small = document.createElement("small");
            link.href = base + entry.url;
            link.textContent = entry.title;
            small.textContent = entry.page;
            link.append(small);
            item.append(link);
            return item;
        }));
        input.addEventListener("input", show);
        document.addEventListener("keydown", event => {
            if (event.key === "Escape") { input.value = ""; show(); }
            if (event.key === "/" && !/INPUT|SELECT/.test(document.activeElement.tagName)) {
                event.preventDefault();
                input.focus();
            }
        });
    }

    root.Search = { find };
    if (root.document) document.addEventListener("DOMContentLoaded", start);
})(globalThis);
