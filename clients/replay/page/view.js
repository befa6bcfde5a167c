/* Draws a recording at a moment: lanes, the state in words, the source. */
(function (root) {
    "use strict";

    const { Replay } = root;
    const { Model, ClockAxis, CallAxis, nextStep, previousStep } = Replay;
    const { TASK, START, END, NAME, RESULT, CLIENT, SLEEP } = Replay;
    const SVG = "http://www.w3.org/2000/svg";
    // Pixels, at the size of text that the reader has
    const UNIT = root.document ? parseFloat(getComputedStyle(document.documentElement).fontSize) / 16 : 1;
    const ROW = 20 * UNIT, BAR = 12 * UNIT, TOP = 22 * UNIT;
    const STEP_WIDTH = 12 * UNIT;   // of a moment on the axis by calls
    const SPEEDS = [["slow", 0.05, 1], ["normal", 0.25, 4], ["fast", 1, 16]];
    const still = () => root.matchMedia("(prefers-reduced-motion: reduce)").matches;

    function element(name, attributes = {}, ...children) {
        const made = document.createElement(name);
        for (const [key, value] of Object.entries(attributes)) {
            if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
            else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
        }
        made.append(...children);
        return made;
    }

    function shape(name, attributes, ...children) {
        const made = document.createElementNS(SVG, name);
        for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
        made.append(...children);
        return made;
    }

    function setText(node, text) { if (node.textContent !== text) node.textContent = text; }

    function seconds(time) { return `${(time / 1e6).toFixed(time % 1000 ? 6 : 3)} s`; }

    function bytes(count) { return count.toLocaleString("en-US"); }

    /** One server's run: its lanes, what holds now, and its source. */
    class View {
        constructor(recording, stage) {
            this.model = new Model(recording);
            this.stage = stage;
            this.recording = recording;
            this.labels = element("div", { class: "lane-labels", "aria-hidden": "true" });
            this.svg = shape("svg", { class: "lanes", role: "img" });
            this.scroller = element("div", { class: "lane-scroller", tabindex: "0", role: "group",
                "aria-label": `Lanes of ${recording.label}` }, this.svg);
            this.root = element("section", { class: "view", "aria-label": recording.label },
                this.heading(), element("div", { class: "lane-box" }, this.labels, this.scroller),
                element("div", { class: "beside" }, this.stateBox(), this.codeBox()));
            this.makeRows();
            const drag = event => {
                if (event.buttons !== 1 && event.type !== "pointerdown") return;
                const box = this.svg.getBoundingClientRect();
                stage.moveTo(stage.axis.time((event.clientX - box.left) / box.width));
            };
            this.svg.addEventListener("pointerdown", drag);
            this.svg.addEventListener("pointermove", drag);
        }

        heading() {
            const { recording } = this;
            const facts = `${recording.title}. Recorded on ${recording.recorded}, ${recording.machine}: ` +
                `${recording.calls.length} calls, ${(recording.elapsed / 1e6).toFixed(2)} s` +
                (recording.unrecorded ? `, ${(recording.unrecorded / 1e6).toFixed(2)} s without strace.` : ".");
            return element("header", {},
                element("h2", {}, recording.label),
                element("p", { class: "facts" }, facts, " ",
                    element("a", { href: `${this.stage.base}recordings/${recording.id}.strace`, download: "" },
                        "The calls in strace's format"),
                    ", which Perfetto's viewer opens."));
        }

        // The lanes.

        makeRows() {
            const { model, recording } = this;
            this.rows = recording.clients.map((client, number) => ({ label: client.name, number, kind: "client" }));
            if (model.followsBytes()) {
                this.rows.push({ label: "accept queue", kind: "queue" },
                    { label: "unread bytes", kind: "unread" },
                    { label: "bytes to clients", kind: "unreceived" });
            }
            recording.tasks.forEach((_, number) =>
                this.rows.push({ label: model.names[number], number, kind: "task" }));
            let before = null, y = TOP;
            for (const row of this.rows) {
                const group = { client: "clients", task: "server" }[row.kind] || "kernel";
                if (group !== before) y += before === null ? 0 : 8;
                row.y = y;
                row.first = group !== before ? group : "";
                before = group;
                y += ROW;
            }
            this.height = y + 4;
            this.labels.style.height = `${this.height}px`;
            for (const row of this.rows) {
                const label = element("span", { class: `lane-label ${row.kind}` }, row.label);
                label.style.top = `${row.y}px`;
                this.labels.append(label);
            }
        }

        draw() {
            const { axis } = this.stage, { model } = this;
            const room = Math.max(120, this.scroller.clientWidth - 2);
            const wide = axis instanceof CallAxis ? axis.times.length * STEP_WIDTH : 0;
            this.width = Math.max(room, wide);
            const x = this.x = time => 4 + axis.position(time) * (this.width - 8);
            const parts = this.ruler();
            for (const row of this.rows) {
                parts.push(shape("line", { class: "row", x1: 0, x2: this.width, y1: row.y + ROW - 1, y2: row.y + ROW - 1 }));
                if (row.kind === "client") this.drawClient(row, parts);
                else if (row.kind === "task") this.drawTask(row, parts);
                else this.drawLevel(row, parts);
            }
            for (const [time, , name] of this.recording.signals)
                if (name === "SIGTERM")
                    parts.push(shape("line", { class: "signal", x1: x(time), x2: x(time), y1: TOP - 6, y2: this.height }),
                        shape("text", { class: "tick", x: Math.min(x(time), this.width - 40) - 2, y: 10 * UNIT, "text-anchor": "end" }, "SIGTERM"));
            this.cursor = shape("line", { class: "cursor", x1: 0, x2: 0, y1: 0, y2: this.height });
            parts.push(this.cursor);
            this.svg.setAttribute("width", this.width);
            this.svg.setAttribute("height", this.height);
            this.svg.setAttribute("aria-label", `${model.clients.length} clients, the kernel and ` +
                `${this.recording.tasks.length} of the server's tasks against time; the same is below in words`);
            this.svg.replaceChildren(...parts);
        }

        ruler() {
            const { axis } = this.stage, parts = [];
            const span = axis.end - axis.start;
            if (axis instanceof CallAxis) {
                for (let i = 0; i < axis.times.length; i += 20)
                    parts.push(shape("text", { class: "tick", x: this.x(axis.times[i]), y: 10 * UNIT }, (axis.times[i] / 1e6).toFixed(3)));
                return parts;
            }
            const fits = Math.max(2, this.width / 90);
            const step = [1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6].find(each => span / each <= fits) || 1e7;
            for (let time = Math.ceil(axis.start / step) * step; time <= axis.end; time += step) {
                const at = this.x(time);
                parts.push(shape("line", { class: "row", x1: at, x2: at, y1: 14 * UNIT, y2: this.height }));
                if (at < this.width - 34 && !this.recording.signals.some(([when, , name]) =>
                    name === "SIGTERM" && at > this.x(when) - 80))
                    parts.push(shape("text", { class: "tick", x: at, y: 10 * UNIT }, `${time / 1e6} s`));
            }
            return parts;
        }

        bar(row, from, to, name, title, parts) {
            const x1 = this.x(from), x2 = Math.max(this.x(to), x1 + 1.5), thin = name === "idle";
            parts.push(shape("rect", { class: name, x: x1, width: x2 - x1,
                y: row.y + (thin ? ROW / 2 - 1 : (ROW - BAR) / 2), height: thin ? 2 : BAR },
                shape("title", {}, title)));
        }

        drawClient(row, parts) {
            const client = this.model.clients[row.number];
            const times = [client.connecting, client.connect, client.greeting, client.disconnect, client.close,
                ...client.sends.map(s => s[0]), ...client.receives.map(r => r[0])]
                .filter(time => time !== null && time !== undefined).sort((a, b) => a - b);
            for (let i = 0; i + 1 < times.length; i++) {
                const state = this.model.clientState(row.number, times[i]);
                if (times[i + 1] > times[i])
                    this.bar(row, times[i], times[i + 1], state.replaceAll(" ", "-"), `${client.name}: ${state}`, parts);
            }
            const mark = (time, up, title) => {
                const x = this.x(time), y = row.y + ROW / 2, d = up ? -1 : 1;
                parts.push(shape("path", { class: up ? "sent" : "got",
                    d: `M${x} ${y + 6 * d}l-3 ${-6 * d}h6z` }, shape("title", {}, title)));
            };
            for (const send of client.sends) mark(send[0], true, `${client.name} sends ${bytes(send[1])} bytes`);
            for (const receive of client.receives) mark(receive[0], false, `${client.name} receives ${bytes(receive[1])} bytes`);
        }

        drawTask(row, parts) {
            const [, , start, end] = this.recording.tasks[row.number];
            const last = end ?? this.model.end;
            parts.push(shape("rect", { class: "alive", x: this.x(start), width: Math.max(0, this.x(last) - this.x(start)), y: row.y + ROW / 2 - 1, height: 2 }));
            for (const call of this.model.calls) {
                if (call[TASK] !== row.number) continue;
                const until = call[END] ?? last, slept = until - call[START] >= SLEEP;
                const word = call[RESULT] === null ? "never returned" : `= ${call[RESULT]}`;
                this.bar(row, call[START], until, slept ? "asleep" : "call", `${call[NAME]} ${word}`, parts);
                const room = this.x(until) - this.x(call[START]);
                if (room > (call[NAME].length * 6.2 + 6) * UNIT)
                    parts.push(shape("text", { class: "in-bar", x: this.x(call[START]) + 3, y: row.y + ROW - 6.5 * UNIT }, call[NAME]));
            }
        }

        drawLevel(row, parts) {
            const { model } = this;
            const value = at => row.kind === "queue" ? model.acceptQueue(at).length :
                model.clients.reduce((sum, _, number) => sum +
                    (row.kind === "unread" ? model.unread(number, at) : model.unreceived(number, at)), 0);
            const steps = model.moments.map(time => [time, value(time)]);
            const most = Math.max(1, ...steps.map(step => step[1]));
            let path = "", previous = 0;
            const y = level => row.y + ROW - 2 - level / most * (ROW - 5);
            for (const [time, level] of steps) {
                if (level === previous) continue;
                path += `${path ? "" : `M${this.x(model.start)} ${y(0)}`}H${this.x(time)}V${y(level)}`;
                previous = level;
            }
            if (!path) return;
            parts.push(shape("path", { class: "level", d: `${path}H${this.x(model.end)}V${y(0)}Z` },
                shape("title", {}, `${row.label}: at most ${bytes(most)}`)));
            row.most = most;
        }

        // In words.

        stateBox() {
            const { recording, model } = this;
            const list = (names, title, name) => {
                const rows = names.map(each => [element("th", { scope: "row" }, each), element("td", {})]);
                return [element("table", { class: name },
                    element("caption", {}, title),
                    ...rows.map(row => element("tr", {}, ...row))), rows.map(row => row[1])];
            };
            let clients, tasks, kernel;
            [clients, this.clientCells] = list(recording.clients.map(client => client.name), "Clients", "now-clients");
            const facts = model.followsBytes() ? ["accept queue", "unread", "to clients"] : ["io_uring"];
            if (model.interest(Infinity)) facts.push("interest list", "ready to read");
            else if (model.sets(Infinity)) facts.push("asked about", "returned");
            [kernel, this.kernelCells] = list(facts, "Kernel", "now-kernel");
            [tasks, this.taskCells] = list(model.names, "Server", "now-tasks");
            this.callLine = element("code", { class: "call-line" });
            this.caller = element("span", { class: "caller" });
            this.bits = element("p", { class: "bits" });
            return element("div", { class: "now" },
                element("p", { class: "call-box" }, this.caller, this.callLine), clients, kernel, this.bits, tasks,
                this.counters());
        }

        /** What the server itself has counted in this run. */
        counters() {
            const { stats } = this.recording;
            if (!stats) return "";
            const rows = Object.entries(stats).filter(([, count]) => count).map(([name, count]) =>
                element("tr", {}, element("th", { scope: "row" }, name.replaceAll("_", " ")), element("td", {}, bytes(count))));
            return element("details", {}, element("summary", {}, "The server's own counters, at the end"),
                element("table", {}, ...rows));
        }

        codeBox() {
            const { recording } = this;
            this.lines = recording.text.split("\n").map((line, index) =>
                element("span", { class: "line", "data-line": index + 1 }, line || " "));
            this.libraryLine = element("p", { class: "library" });
            this.code = element("pre", { class: "source", tabindex: "0", role: "group", "aria-label": recording.source },
                element("code", {}, ...this.lines));
            return element("div", { class: "code-box" },
                element("p", { class: "file" }, recording.source), this.code, this.libraryLine);
        }

        show(at) {
            const { model } = this;
            if (this.cursor) {
                const x = this.x(at);
                this.cursor.setAttribute("x1", x);
                this.cursor.setAttribute("x2", x);
                const { scrollLeft, clientWidth } = this.scroller;
                if (x < scrollLeft + 20 || x > scrollLeft + clientWidth - 20)
                    this.scroller.scrollLeft = x - clientWidth / 3;
            }
            this.clientCells.forEach((cell, number) => {
                const unread = model.unread(number, at), back = model.unreceived(number, at);
                setText(cell, model.clientState(number, at) + (model.followsBytes() ?
                    (unread ? `, ${bytes(unread)} B unread` : "") + (back ? `, ${bytes(back)} B sent to it` : "") : ""));
            });
            this.showKernel(at);
            this.taskCells.forEach((cell, number) => setText(cell, model.taskState(number, at)));
            this.showCode(at);
        }

        showKernel(at) {
            const { model } = this, cells = this.kernelCells;
            if (!model.followsBytes()) {
                setText(cells[0], "the kernel moves bytes without a call for each client: not in this recording");
                return;
            }
            const queue = model.acceptQueue(at), sum = read => bytes(model.clients.reduce((total, _, n) => total + read(n), 0));
            setText(cells[0], queue.length ? `${queue.length}: ${queue.join(", ")}` : "empty");
            setText(cells[1], `${sum(n => model.unread(n, at))} B`);
            setText(cells[2], `${sum(n => model.unreceived(n, at))} B`);
            if (!cells[3]) return;
            const names = model.descriptors(at), named = fd => names.has(fd) ? `${fd} ${names.get(fd)}` : `${fd}`;
            const interest = model.interest(at), sets = model.sets(at);
            if (model.interest(Infinity)) {
                setText(cells[3], [...(interest || [])].map(([fd, events]) => `${named(fd)} ${events}`).join("; ") || "empty");
                setText(cells[4], (model.ready(at) || []).map(named).join("; ") || "empty");
                return;
            }
            setText(cells[3], sets ? `${sets.name}: ${[...sets.read, ...sets.write.map(fd => `${fd} to write`)].join(" ") || "nothing"}` : "nothing yet");
            setText(cells[4], !sets ? "nothing yet" : sets.ready === null ? "not yet" : sets.ready.join(" ") || "nothing");
            this.showBits(sets, names);
        }

        /** select's sets as the kernel gets them: one bit for each descriptor. */
        showBits(sets, names) {
            if (!sets || !sets.name.includes("select")) { this.bits.replaceChildren(); return; }
            const most = Math.max(...sets.read, ...sets.write, 0), row = (title, set) =>
                element("span", { class: "bit-row" }, element("span", { class: "bit-title" }, title),
                    ...Array.from({ length: most + 1 }, (_, fd) => element("span", {
                        class: set.includes(fd) ? "bit one" : "bit", title: names.get(fd) || `descriptor ${fd}`,
                    }, set.includes(fd) ? "1" : "0")));
            const key = JSON.stringify([sets.read, sets.write, sets.ready]);
            if (this.bits.dataset.key === key) return;
            this.bits.dataset.key = key;
            this.bits.replaceChildren(row("read set, in", sets.read),
                ...(sets.write.length ? [row("write set, in", sets.write)] : []),
                ...(sets.ready ? [row("out", sets.ready)] : []));
        }

        showCode(at) {
            const { model } = this, latest = model.latestCall(at), lit = new Map();
            this.recording.tasks.forEach((_, task) => {
                const state = model.taskState(task, at), index = model.callOf(task, at);
                const place = index >= 0 && state !== "ended" ? model.place(index) : null;
                if (place) lit.set(place[1], [...(lit.get(place[1]) || []), model.names[task]]);
            });
            for (const line of this.lit || []) {
                line.classList.remove("lit", "latest");
                line.removeAttribute("data-tasks");
            }
            this.lit = [];
            const newest = latest >= 0 ? model.place(latest) : null;
            for (const [number, names] of lit) {
                const line = this.lines[number - 1];
                if (!line) continue;
                line.classList.add("lit");
                if (this.recording.tasks.length > 1)
                    line.dataset.tasks = names.length > 2 ? `${names.length} tasks` : names.join(", ");
                this.lit.push(line);
            }
            if (newest && this.lines[newest[1] - 1]) {
                const line = this.lines[newest[1] - 1];
                line.classList.add("latest");
                this.lit.push(line);
                const top = line.offsetTop;
                if (top < this.code.scrollTop + 20 || top > this.code.scrollTop + this.code.clientHeight - 40)
                    this.code.scrollTop = top - this.code.clientHeight / 2;
            }
            setText(this.callLine, latest < 0 ? "no call yet" : model.callText(latest, at));
            setText(this.caller, latest < 0 ? "" : model.names[model.calls[latest][TASK]]);
            const library = latest >= 0 ? model.library(latest) : null;
            setText(this.libraryLine, library ? `${library[0]}:${library[1]}  ${library[3]}` : "");
        }
    }

    /** What the bars and marks of the lanes mean. */
    function legend() {
        const entry = (name, text) => {
            const made = shape("svg", { class: "lanes", width: 22, height: 14, "aria-hidden": "true" });
            if (name === "sent" || name === "got")
                made.append(shape("path", { class: name, d: name === "sent" ? "M11 2l-3 6h6z" : "M11 12l-3 -6h6z" }));
            else
                made.append(shape("rect", { class: name, x: 1, width: 20, y: name === "idle" ? 6 : 1, height: name === "idle" ? 2 : 12 }));
            return element("span", {}, made, text);
        };
        return element("p", { class: "legend" },
            entry("waiting-for-the-greeting", "waits for the greeting"), entry("waiting-for-an-answer", "waits for an answer"),
            entry("idle", "idle"), entry("waiting-for-the-close", "waits for the close"), entry("sent", "sends"), entry("got", "receives"),
            entry("asleep", "a call that sleeps (1 ms or more)"), entry("call", "a call that returns at once"));
    }

    /** The controls, and one or two views on one time axis. */
    class Stage {
        constructor(node, choices, base) {
            this.node = node;
            this.base = base;
            this.choices = choices;
            this.at = 0;
            this.byCall = false;
            this.speed = 1;
            this.views = [];
            node.classList.add("stage");
            node.replaceChildren(this.controls(), this.place = element("div", { class: "views" }));
            node.addEventListener("keydown", event => this.key(event));
            new ResizeObserver(() => this.redraw()).observe(this.place);
        }

        controls() {
            const button = (text, label, action) =>
                element("button", { type: "button", "aria-label": label, title: label, onclick: action }, text);
            const select = (label, options, action) => {
                const made = element("select", { onchange: action }, ...options.map(([value, text]) => element("option", { value }, text)));
                return [element("label", {}, `${label} `, made), made];
            };
            let speed, axis, scene, other;
            this.playButton = button("\u25b6", "Play", () => this.toggle());
            this.slider = element("input", { type: "range", min: 0, max: 10000, value: 0, "aria-label": "Moment",
                oninput: () => this.moveTo(this.axis.time(this.slider.value / 10000)) });
            this.clock = element("output", { class: "clock" });
            [scene, this.sceneSelect] = select("Run", this.choices.map(({ id, name }) => [id, name]), () => this.choose());
            [other, this.otherSelect] = select("beside", [["", "nothing"], ...this.choices.map(({ id, name }) => [id, name])], () => this.choose());
            [axis, this.axisSelect] = select("Time", [["clock", "by the clock"], ["call", "by the call"]], () => {
                this.byCall = this.axisSelect.value === "call";
                this.setAxis();
            });
            [speed, this.speedSelect] = select("Speed", SPEEDS.map(([name], index) => [index, name]), () => {
                this.speed = Number(this.speedSelect.value);
            });
            this.speedSelect.value = this.speed;
            return element("div", { class: "controls" },
                element("div", { class: "control-row" },
                    button("\u21e4", "To the beginning", () => this.moveTo(this.axis.start)),
                    button("|\u25c0", "Previous call", () => this.step(-1)), this.playButton,
                    button("\u25b6|", "Next call", () => this.step(1)),
                    this.slider, this.clock,
                    button("Full screen", "Full screen", () => document.fullscreenElement ?
                        document.exitFullscreen() : this.node.requestFullscreen())),
                element("div", { class: "control-row" }, scene, other, axis, speed),
                legend(), element("p", { class: "keys" }, "Keys: space plays, ← and → step to the call before and after, " +
                    "Home and End, A changes the time axis, + and − the speed."));
        }

        async choose(first = this.sceneSelect.value, second = this.otherSelect.value) {
            this.sceneSelect.value = first;
            this.otherSelect.value = second;
            const recordings = [];
            for (const id of [first, second]) if (id) recordings.push(await load(id, this.base));
            this.views = recordings.map(recording => new View(recording, this));
            this.place.replaceChildren(...this.views.map(view => view.root));
            this.place.classList.toggle("two", this.views.length === 2);
            this.steps = [...new Set(this.views.flatMap(view => view.model.steps()))].sort((a, b) => a - b);
            this.at = Math.max(this.at, this.views[0].model.start);
            this.setAxis();
            this.node.dataset.ready = this.views.map(view => view.recording.id).join(" ");
        }

        setAxis() {
            const models = this.views.map(view => view.model);
            this.axis = this.byCall ? new CallAxis(models) : new ClockAxis(models);
            this.redraw();
        }

        redraw() {
            if (!this.axis) return;
            for (const view of this.views) view.draw();
            this.moveTo(this.at);
        }

        moveTo(time) {
            const first = Math.min(...this.views.map(view => view.model.start));
            this.at = Math.round(Math.min(Math.max(time, first), this.axis.end));
            this.slider.value = this.axis.position(this.at) * 10000;
            setText(this.clock, seconds(this.at));
            this.slider.setAttribute("aria-valuetext", seconds(this.at));
            for (const view of this.views) view.show(this.at);
        }

        step(direction) {
            this.pause();
            this.moveTo(direction > 0 ? nextStep(this.steps, this.at) : previousStep(this.steps, this.at));
        }

        toggle() { if (this.playing) this.pause(); else this.play(); }

        pause() {
            this.playing = false;
            clearTimeout(this.timer);
            setText(this.playButton, "\u25b6");
            this.playButton.setAttribute("aria-label", "Play");
        }

        play() {
            if (this.at >= this.axis.end) this.moveTo(this.axis.start);
            this.playing = true;
            setText(this.playButton, "\u2016");
            this.playButton.setAttribute("aria-label", "Pause");
            let before = performance.now();
            const advance = now => {
                if (!this.playing) return;
                const passed = Math.min(0.25, (now - before) / 1000), [, rate, calls] = SPEEDS[this.speed];
                before = now;
                this.moveTo(this.byCall ?
                    this.axis.time(this.axis.position(this.at) + passed * calls / this.axis.times.length) :
                    this.at + Math.max(1, passed * rate * 1e6));
                if (this.at >= this.axis.end) this.pause();
                else requestAnimationFrame(advance);
            };
            const jump = () => {    // for those who want no motion: one call a second
                if (!this.playing) return;
                this.moveTo(nextStep(this.steps, this.at));
                if (this.at >= this.steps[this.steps.length - 1]) this.pause();
                else this.timer = setTimeout(jump, 1000);
            };
            if (still()) this.timer = setTimeout(jump, 1000);
            else requestAnimationFrame(advance);
        }

        key(event) {
            if (event.ctrlKey || event.metaKey || event.altKey) return;
            if (event.target.tagName === "SELECT") return;
            const onButton = event.target.tagName === "BUTTON" && (event.key === " " || event.key === "Enter");
            const actions = {
                " ": () => this.toggle(), ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
                Home: () => this.moveTo(this.axis.start), End: () => this.moveTo(this.axis.end),
                a: () => { this.axisSelect.value = this.byCall ? "clock" : "call"; this.byCall = !this.byCall; this.setAxis(); },
                "+": () => this.setSpeed(this.speed + 1), "-": () => this.setSpeed(this.speed - 1),
            };
            const action = actions[event.key] || actions[event.key.toLowerCase()];
            if (!action || onButton || event.target.tagName === "A") return;
            event.preventDefault();
            action();
        }

        setSpeed(index) {
            this.speed = Math.min(SPEEDS.length - 1, Math.max(0, index));
            this.speedSelect.value = this.speed;
        }
    }

    /* A page that was opened as a file may not fetch others, but it may load scripts. Each
     * recording is one. */
    const loaded = new Map();
    function load(id, base) {
        root.RECORDINGS = root.RECORDINGS || {};
        if (!loaded.has(id)) {
            loaded.set(id, new Promise((resolve, reject) => {
                document.head.append(element("script", { src: `${base}recordings/${id}.js`,
                    onload: () => resolve(root.RECORDINGS[id]), onerror: () => reject(new Error(id)) }));
            }));
        }
        return loaded.get(id);
    }

    function start() {
        for (const node of document.querySelectorAll("[data-replay]")) {
            const own = node.dataset.replay.split(" ");
            const all = root.RUNS || [];
            const first = own.filter(id => all.some(run => run.id === id));
            if (!first.length) continue;
            const choices = [...all].sort((a, b) => own.includes(b.id) - own.includes(a.id));
            const stage = new Stage(node, choices, node.dataset.base);
            node.stage = stage;
            stage.choose(first[0], node.dataset.beside || "");
        }
    }

    root.Replay.Stage = Stage;
    if (root.document) document.addEventListener("DOMContentLoaded", start);
})(globalThis);
