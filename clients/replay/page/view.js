/* Draws a recording at a moment: lanes, the state in words, the source. */
(function (root) {
    "use strict";

    const { Replay } = root;
    const { Model, ClockAxis, CallAxis, nextStep, previousStep, hasSlept } = Replay;
    const { TASK, START, END, NAME, RESULT, CLIENT } = Replay;
    const SVG = "http://www.w3.org/2000/svg";
    // Pixels, at the size of text that the reader has
    const UNIT = root.document ? parseFloat(getComputedStyle(document.documentElement).fontSize) / 16 : 1;
    const ROW = 20 * UNIT, BAR = 12 * UNIT, TOP = 22 * UNIT;
    const STEP_WIDTH = 12 * UNIT;   // of a moment on the axis by calls
    const LETTER = 6.2 * UNIT;      // the width of a letter in the lanes
    const HEAD = 18 * UNIT;         // of the name above a group of lanes
    // Of a speed: its name by the clock, its name by the call, the share of real time, moments a second
    const SPEEDS = [["1/20 of real time", "1 moment a second", 0.05, 1],
        ["1/4 of real time", "4 moments a second", 0.25, 4], ["real time", "16 moments a second", 1, 16]];
    const GROUPS = { client: "Clients", queue: "Kernel", socket: "Kernel", list: "Kernel", task: "Server" };
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

    /** Words in boxes; the separators are there for those who copy or hear them. */
    function setChips(cell, words) {
        const text = words.join("; ") || "empty";
        if (cell.textContent === text) return;
        cell.replaceChildren(...words.flatMap((word, index) => [
            ...index ? [element("span", { class: "separator" }, "; ")] : [], element("span", { class: "chip" }, word)]));
        if (!words.length) cell.textContent = text;
    }

    function seconds(time) { return `${(time / 1e6).toFixed(time % 1000 ? 6 : 3)} s`; }

    function bytes(count) { return count.toLocaleString("en-US"); }

    /** One server's run: its lanes, what holds now, and its source. */
    class View {
        constructor(recording, stage) {
            this.model = new Model(recording);
            this.stage = stage;
            this.recording = recording;
            this.stops = recording.signals.filter(([, , name]) => name === "SIGTERM");
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
            const facts = `Recorded on ${recording.recorded}, ${recording.machine}: ` +
                `${recording.calls.length} calls, ${(recording.elapsed / 1e6).toFixed(2)} s` +
                (recording.unrecorded ? `, ${(recording.unrecorded / 1e6).toFixed(2)} s without strace.` : ".");
            return element("header", {},
                element("h2", {}, `${recording.label}: ${recording.title}`),
                element("p", { class: "facts" }, facts, " ",
                    element("a", { href: `${this.stage.base}recordings/${recording.id}.strace`, download: "" },
                        "The calls in strace's format"), ": ",
                    element("a", { href: "https://ui.perfetto.dev/" }, "Perfetto's viewer"), " opens this file."));
        }

        // The lanes.

        makeRows() {
            const { model, recording } = this;
            this.rows = recording.clients.map((client, number) => ({ label: client.name, number, kind: "client" }));
            if (model.followsBytes()) {
                this.rows.push({ label: "accept queue", kind: "queue", value: at => model.acceptQueue(at).length },
                    ...recording.clients.map((client, number) => ({ label: `${client.name}'s bytes`, number, kind: "socket" })));
                if (model.interest(Infinity))
                    this.rows.push({ label: "interest list", kind: "list", value: at => (model.interest(at) || []).length },
                        { label: model.readyName(), kind: "list", value: at => (model.ready(at) || []).length });
                else if (model.sets(Infinity))
                    this.rows.push({ label: model.sets(Infinity).name.includes("select") ? "bits set" : "asked about", kind: "list", value: at => {
                        const sets = model.sets(at);
                        return sets ? (sets.ready || [...sets.read, ...sets.write]).length : 0;
                    } });
            }
            recording.tasks.forEach((_, number) =>
                this.rows.push({ label: model.names[number], number, kind: "task" }));
            let before = null, y = TOP;
            for (const row of this.rows) {
                const group = GROUPS[row.kind];
                if (group !== before) {
                    this.addLabel(group, `group ${group.toLowerCase()}`, y);
                    y += HEAD;
                }
                row.y = y;
                before = group;
                this.addLabel(row.label, row.kind, y);
                y += ROW;
            }
            this.height = y + 4;
            this.labels.style.height = `${this.height}px`;
        }

        addLabel(text, kind, y) {
            const label = element("span", { class: `lane-label ${kind}` }, text);
            label.style.top = `${y}px`;
            this.labels.append(label);
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
                else if (row.kind === "socket") this.drawSocket(row, parts);
                else this.drawLevel(row, parts);
            }
            this.drawSignals(parts);
            this.cursor = shape("line", { class: "cursor", x1: 0, x2: 0, y1: 0, y2: this.height });
            parts.push(this.cursor);
            this.svg.setAttribute("width", this.width);
            this.svg.setAttribute("height", this.height);
            this.svg.setAttribute("aria-label", `${model.clients.length} clients, the kernel and ` +
                `${this.recording.tasks.length} of the server's tasks against time; the same is below in words`);
            this.svg.replaceChildren(...parts);
        }

        /** The order to stop; where it is passed on to other tasks, a mark in their lanes. */
        drawSignals(parts) {
            const [first, ...others] = this.stops;
            if (!first) return;
            const line = (time, from, to) => {
                const x = this.x(time);
                parts.push(shape("line", { class: "signal", x1: x, x2: x, y1: from, y2: to }));
                return x;
            };
            const x = line(first[0], TOP - 6, this.height);
            parts.push(shape("text", { class: "tick", x: x - 3, y: 10 * UNIT, "text-anchor": "end" }, "SIGTERM"));
            for (const [time, task] of others) {
                const row = this.rows.find(each => each.kind === "task" && each.number === task);
                line(time, row.y, row.y + ROW);
            }
        }

        ruler() {
            const { axis } = this.stage, parts = [];
            const span = axis.end - axis.start;
            if (axis instanceof CallAxis) {
                for (let i = 0; i < axis.times.length; i += 20)
                    parts.push(shape("text", { class: "tick", x: this.x(axis.times[i]), y: 10 * UNIT }, (axis.times[i] / 1e6).toFixed(3)));
                return parts;
            }
            const stop = this.stops.length ? this.x(this.stops[0][0]) : Infinity;    // the word SIGTERM stands in front of it
            const fits = Math.max(2, this.width / 90);
            const step = [1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6].find(each => span / each <= fits) || 1e7;
            for (let time = Math.ceil(axis.start / step) * step; time <= axis.end; time += step) {
                const at = this.x(time);
                parts.push(shape("line", { class: "row", x1: at, x2: at, y1: 14 * UNIT, y2: this.height }));
                const label = `${time / 1e6} s`, end = at + label.length * LETTER;
                if (end < this.width && (end < stop - 9 * LETTER || at > stop))
                    parts.push(shape("text", { class: "tick", x: at, y: 10 * UNIT }, label));
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
                ...client.sends.map(s => s[0]), ...client.receives.map(r => r[0]), ...this.model.unreceivedChanges[row.number].map(c => c[0])]
                .filter(time => time !== null && time !== undefined && time <= (client.close ?? Infinity)).sort((a, b) => a - b);
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
                const until = call[END] ?? last, slept = hasSlept(call);
                const word = call[RESULT] === null ? "never returned" : `= ${call[RESULT]}`;
                this.bar(row, call[START], until, slept ? "asleep" : "call", `${call[NAME]} ${word}`, parts);
                const room = this.x(until) - this.x(call[START]);
                if (room > call[NAME].length * LETTER + 6 * UNIT)
                    parts.push(shape("text", { class: slept ? "in-bar" : "in-bar on-call", x: this.x(call[START]) + 3, y: row.y + ROW - 6.5 * UNIT }, call[NAME]));
            }
        }

        /** The path of a step function, without the parts where it is zero. */
        levelPath(value, y) {
            const { model } = this;
            let path = "", previous = 0;
            for (const time of model.moments) {
                const level = value(time);
                if (level === previous) continue;
                path += `${previous ? "" : `M${this.x(time)} ${y(0)}`}H${this.x(time)}V${y(level)}${level ? "" : "Z"}`;
                previous = level;
            }
            return previous ? `${path}H${this.x(model.end)}V${y(0)}Z` : path;
        }

        most(value) { return Math.max(1, ...this.model.moments.map(value)); }

        drawLevel(row, parts) {
            const most = this.most(row.value), bottom = row.y + ROW - 2;
            const path = this.levelPath(row.value, level => bottom - level / most * (ROW - 5));
            if (path) parts.push(shape("path", { class: "level", d: path }, shape("title", {}, `${row.label}: at most ${bytes(most)}`)));
        }

        /** Above the line what the server has not read, below it what the client has not received. */
        drawSocket(row, parts) {
            const { model } = this, middle = row.y + ROW / 2, half = ROW / 2 - 2, name = model.clients[row.number].name;
            parts.push(shape("line", { class: "zero", x1: this.x(model.start), x2: this.x(model.end), y1: middle, y2: middle }));
            const unread = at => model.unread(row.number, at), back = at => model.unreceived(row.number, at);
            for (const [value, sign, kind, what] of [[unread, -1, "level", "sent by it and not read by the server"],
                [back, 1, "level back", "sent to it and not yet received"]]) {
                const most = this.most(value);
                const path = this.levelPath(value, level => middle + sign * level / most * half);
                if (path) parts.push(shape("path", { class: kind, d: path },
                    shape("title", {}, `${name}: at most ${bytes(most)} bytes that were ${what}`)));
            }
        }

        // In words.

        stateBox() {
            const { recording, model } = this;
            const table = (title, name, names, heads = [], cells = 1) => {
                const rows = names.map(each => [element("th", { scope: "row" }, each),
                    ...Array.from({ length: cells }, () => element("td", {}))]);
                return [element("table", { class: name }, element("caption", {}, title),
                    ...heads.length ? [element("thead", {}, element("tr", {}, element("td", {}),
                        ...heads.map(head => element("th", { scope: "col" }, head))))] : [],
                    element("tbody", {}, ...rows.map(row => element("tr", {}, ...row)))), rows.map(row => row.slice(1))];
            };
            const zero = (recording.descriptors || []).find(([, , number]) => number === 0);
            const note = zero ? [element("p", { class: "facts" }, `The server closes its standard input, so its ${zero[3]} gets the descriptor number 0.`)] : [];
            let clients, tasks, kernel;
            const bytesToo = model.followsBytes() ? ["state", "not read yet", "on the way back"] : ["state"];
            [clients, this.clientCells] = table("Clients, and their bytes in the kernel", "now-clients",
                recording.clients.map(client => client.name), bytesToo, bytesToo.length);
            const facts = model.followsBytes() ? ["accept queue"] : ["io_uring"];
            if (model.interest(Infinity)) facts.push("interest list", model.readyName());
            else if (model.sets(Infinity)) facts.push("asked about", "returned");
            [kernel, this.kernelCells] = table("Kernel", "now-kernel", facts);
            [tasks, this.taskCells] = table("Server", "now-tasks", model.names);
            this.callLine = element("code", { class: "call-line" });
            this.meaning = element("span", { class: "meaning" });
            this.bits = element("div", { class: "bits" });
            this.failures = element("p", { class: "facts" });
            return element("div", { class: "now" }, tasks, kernel, ...note, this.bits, clients, this.failures, this.counters());
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
            this.libraryLine = element("span", { class: "library" });
            this.code = element("pre", { class: "source", tabindex: "0", role: "group", "aria-label": recording.source },
                element("code", {}, ...this.lines));
            return element("div", { class: "code-box" },
                element("p", { class: "call-box" }, this.meaning, this.callLine, this.libraryLine),
                element("p", { class: "file" }, recording.own ? recording.source + (recording.places.length ? "" :
                    ": its lines are not known, because the program has no debugging information (in C: cc -g)") :
                    element("a", { href: `${this.stage.base}${recording.source}.html` }, recording.source)),
                this.code);
        }

        show(at) {
            const { model, recording } = this;
            if (this.cursor) {
                const x = this.x(at);
                this.cursor.setAttribute("x1", x);
                this.cursor.setAttribute("x2", x);
                const { scrollLeft, clientWidth } = this.scroller;
                if (x < scrollLeft + 20 || x > scrollLeft + clientWidth - 20)
                    this.scroller.scrollLeft = x - clientWidth / 3;
            }
            this.clientCells.forEach(([state, unread, back], number) => {
                setText(state, model.clientState(number, at));
                if (!unread) return;
                const waits = model.unread(number, at), comes = model.unreceived(number, at);
                setText(unread, waits ? `${bytes(waits)} B` : "-");
                setText(back, comes ? `${bytes(comes)} B` : "-");
            });
            const failed = recording.clients.filter(client => client.failure && client.close !== null && client.close <= at);
            setText(this.failures, [...new Set(failed.map(client => client.failure))].map(reason =>
                `${failed.filter(client => client.failure === reason).map(client => client.name).join(", ")} failed: ${reason}.`).join(" "));
            this.showKernel(at);
            this.taskCells.forEach(([cell], number) => setText(cell, model.taskState(number, at)));
            this.showCode(at);
        }

        showKernel(at) {
            const { model } = this, cells = this.kernelCells.map(([cell]) => cell);
            if (!model.followsBytes()) {
                setText(cells[0], "The kernel moves bytes without a call for each client: they are not in this recording. " +
                    "The server's own counters are below.");
                return;
            }
            const queue = model.acceptQueue(at);
            setText(cells[0], queue.length ? `${queue.length}: ${queue.join(", ")}` : "empty");
            if (!cells[1]) return;
            const names = model.descriptors(at), named = fd => `${fd} ${names.get(fd) || "server's own"}`;
            if (model.interest(Infinity)) {
                const interest = model.interest(at) || [], several = new Set(interest.map(({ epoll }) => epoll)).size > 1;
                setChips(cells[1], interest.map(({ epoll, descriptor, events }) =>
                    `${named(descriptor)} ${events}${several ? ` in epoll ${epoll}` : ""}`));
                setChips(cells[2], (model.ready(at) || []).map(named));
                return;
            }
            const sets = model.sets(at);
            setText(cells[1], sets ? `${sets.name}: ${[...sets.read, ...sets.write.map(fd => `${fd} to write`)].join(" ") || "nothing"}` : "nothing yet");
            setText(cells[2], !sets ? "nothing yet" : sets.ready === null ? "not yet" : sets.ready.join(" ") || "nothing");
            this.showBits(sets, names);
        }

        /** select's sets as the kernel gets them and as it leaves them: one bit for each descriptor. */
        showBits(sets, names) {
            if (!sets || !sets.name.includes("select")) {
                this.bits.replaceChildren();
                this.bits.dataset.key = "";
                return;
            }
            const numbers = Array.from({ length: Math.max(...sets.read, ...sets.write, 0) + 1 }, (_, fd) => fd);
            const key = JSON.stringify([sets.read, sets.write, sets.ready, [...names]]);
            if (this.bits.dataset.key === key) return;
            this.bits.dataset.key = key;
            const asked = fd => sets.read.includes(fd) || sets.write.includes(fd);
            const row = (title, set) => element("tr", {}, element("th", { scope: "row" }, title),
                ...numbers.map(fd => element("td", { class: set && set.includes(fd) ? "one" : "" }, set ? (set.includes(fd) ? "1" : "0") : "?")));
            this.bits.replaceChildren(element("table", { class: "bit-table" },
                element("thead", {}, element("tr", {}, element("th", { scope: "row" }, "descriptor"),
                    ...numbers.map(fd => element("th", { scope: "col" }, element("span", {}, `${fd} ${names.get(fd) || (asked(fd) ? "server's own" : "")}`))))),
                element("tbody", {}, row("read set, given", sets.read),
                    ...(sets.write.length ? [row("write set, given", sets.write)] : []),
                    row("returned", sets.ready))));
        }

        showCode(at) {
            const { model } = this, latest = model.latestCall(at), lit = new Map();
            this.recording.tasks.forEach((_, task) => {
                const state = model.taskState(task, at), index = model.callOf(task, at);
                const place = index >= 0 && state !== "ended" ? model.place(index) : null;
                if (place) lit.set(place[1], [...(lit.get(place[1]) || []), model.names[task]]);
            });
            for (const line of this.lit || []) {
                line.classList.remove("lit", "latest", "past");
                line.removeAttribute("data-tasks");
            }
            this.lit = [];
            const ended = latest >= 0 && model.taskState(model.calls[latest][TASK], at) === "ended";
            const newest = latest >= 0 && !ended ? model.place(latest) : null;
            for (const [number, names] of lit) {
                const line = this.lines[number - 1];
                if (!line) continue;
                line.classList.add("lit");
                if (this.recording.tasks.length > 1)
                    line.dataset.tasks = names.length > 2 ? `${names.length} ${names.every(name => name.startsWith("thread")) ? "threads" : names.every(name => name.startsWith("process")) ? "processes" : "tasks"}` : names.join(", ");
                this.lit.push(line);
            }
            if (newest && this.lines[newest[1] - 1]) {
                const line = this.lines[newest[1] - 1];
                line.classList.add("latest");
                line.classList.toggle("past", model.isQuiet(latest, at));
                this.lit.push(line);
                const top = line.offsetTop;
                if (top < this.code.scrollTop + 20 || top > this.code.scrollTop + this.code.clientHeight - 40)
                    this.code.scrollTop = top - this.code.clientHeight / 2;
            }
            setText(this.callLine, latest < 0 ? "no call yet" : model.callText(latest, at));
            setText(this.meaning, latest < 0 ? "Nothing has happened yet." : model.meaning(latest, at));
            const library = latest >= 0 && !ended ? model.library(latest) : null;
            setText(this.libraryLine, library ? `called in ${library[0]}, line ${library[1]}: ${library[3]}` : "");
        }
    }

    /** What the bars and marks of the lanes mean, a line for each group of lanes. */
    function legend() {
        const entry = (name, text) => {
            const made = shape("svg", { class: "lanes", width: 22, height: 14, "aria-hidden": "true" });
            const paths = { sent: "M11 4l-3 6h6z", got: "M11 10l-3 -6h6z", level: "M2 7V2H12V7H20", signal: "M11 0V14", "level back": "M2 7V12H12V7H20" };
            if (paths[name]) made.append(shape("path", { class: name, d: paths[name] }));
            else made.append(shape("rect", { class: name, x: 1, width: 20, y: /idle|alive/.test(name) ? 6 : 1, height: /idle|alive/.test(name) ? 2 : 12 }));
            return element("span", {}, made, text);
        };
        const line = (group, ...entries) => element("p", { class: "legend" }, element("b", { class: group.toLowerCase() }, group), ...entries);
        return element("div", { class: "legends" },
            line("Clients", entry("connecting", "connects"), entry("waiting-for-the-greeting", "waits for the greeting"), entry("waiting-for-an-answer", "waits for an answer"), entry("answers-wait-for-it", "has not read the answers that wait for it"),
                entry("idle", "idle"), entry("waiting-for-the-close", "waits for the close"), entry("sent", "sends"), entry("got", "receives")),
            line("Kernel", entry("level", "how many, or bytes that the server has not read"),
                entry("level back", "bytes that the client has not received (those of a send that sleeps count when it returns)")),
            line("Server", entry("asleep", "a call that sleeps"), entry("call", "a call that does not sleep"),
                entry("alive", "no call: it runs, or waits for a CPU"), entry("signal", "SIGTERM: the order to stop")));
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
                element("button", { type: "button", title: label, onclick: action }, text);
            const select = (label, options, action) => {
                const made = element("select", { onchange: action }, ...options);
                return [element("label", {}, `${label} `, made), made];
            };
            const options = pairs => pairs.map(([value, text]) => element("option", { value }, text));
            const runs = () => {
                const own = this.choices.filter(run => run.own), others = this.choices.filter(run => !run.own);
                const all = part => options(part.map(({ id, name }) => [id, name]));
                return own.length && others.length ? [element("optgroup", { label: "This page" }, ...all(own)),
                    element("optgroup", { label: "Other servers" }, ...all(others))] : all(this.choices);
            };
            let speed, axis, scene, other;
            this.playButton = button("", "Play or pause (space)", () => this.toggle());
            this.playButton.className = "play";
            this.slider = element("input", { type: "range", min: 0, max: 10000, value: 0, "aria-label": "Moment",
                oninput: () => this.moveTo(this.axis.time(this.slider.value / 10000)) });
            this.clock = element("output", { class: "clock" });
            [scene, this.sceneSelect] = select("Run", runs(), () => this.choose());
            [other, this.otherSelect] = select("beside", [element("option", { value: "" }, "nothing"), ...runs()], () => this.choose());
            [axis, this.axisSelect] = select("Time axis", options([["clock", "by the clock"], ["call", "by the call"]]), () => {
                this.byCall = this.axisSelect.value === "call";
                this.setAxis();
            });
            [speed, this.speedSelect] = select("Speed", SPEEDS.map((_, index) => element("option", { value: index })), () => {
                this.speed = Number(this.speedSelect.value);
            });
            this.pause();
            return element("div", { class: "controls" },
                element("div", { class: "control-row" },
                    this.playButton, button("\u25c0 call", "To the call before (left arrow)", () => this.step(-1)),
                    button("call \u25b6", "To the next call (right arrow)", () => this.step(1)),
                    button("Start", "To the beginning (Home)", () => this.moveTo(this.axis.start)),
                    this.slider, this.clock,
                    button("Full screen", "Full screen (F)", () => this.fullScreen())),
                element("div", { class: "control-row" }, scene, other, axis, speed),
                element("p", { class: "keys" }, "The clock shows 0 when the clients begin; the server starts before that. " +
                    "Play, or drag in the lanes. Keys: space plays, \u2190 and \u2192 step from call to call, " +
                    "Home and End, A changes the time axis, + and \u2212 the speed, F full screen."),
                legend());
        }

        fullScreen() { return document.fullscreenElement ? document.exitFullscreen() : this.node.requestFullscreen(); }

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
            SPEEDS.forEach((names, index) => setText(this.speedSelect.options[index], names[this.byCall ? 1 : 0]));
            this.speedSelect.value = this.speed;
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
            setText(this.playButton, "\u25b6 Play");
        }

        play() {
            if (this.at >= this.axis.end) this.moveTo(this.axis.start);
            this.playing = true;
            setText(this.playButton, "\u2016 Pause");
            let before = performance.now();
            const advance = now => {
                if (!this.playing) return;
                const passed = Math.min(0.25, (now - before) / 1000), [, , rate, calls] = SPEEDS[this.speed];
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
                f: () => this.fullScreen(),
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
            const choices = all.map(run => ({ ...run, own: own.includes(run.id) }));
            const stage = new Stage(node, choices, node.dataset.base);
            node.stage = stage;
            const follow = () => {
                const asked = asks(root.location.hash, choices);
                if (asked) stage.choose(...asked);
                return asked !== null;
            };
            if (!follow()) stage.choose(first[0], node.dataset.beside || "");
            root.addEventListener("hashchange", follow);
        }
    }

    /** Which runs an address such as page.html#replay=1-five+2-five names; null if none. */
    function asks(hash, choices) {
        const [, first, second = ""] = /^#replay=([\w-]+)(?:\+([\w-]+))?$/.exec(hash) || [];
        const known = id => choices.some(run => run.id === id);
        return known(first) && (!second || known(second)) ? [first, second] : null;
    }

    root.Replay.Stage = Stage;
    if (root.document) document.addEventListener("DOMContentLoaded", start);
})(globalThis);
