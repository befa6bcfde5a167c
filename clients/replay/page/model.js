/* What a recording says about a moment. No drawing here: this file knows no document.
 *
 * A recording is the JSON that record.py writes (recording.py describes its fields). A time is
 * a number of microseconds since the clients began. */
(function (root) {
    "use strict";

    const [TASK, START, END, NAME, TEXT, RESULT, CLIENT, PLACE, LIBRARY] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
    const RECEIVE = ["recvfrom", "recvmsg", "read", "readv"];
    const SEND = ["sendto", "sendmsg", "write", "writev"];
    // Microseconds after which a call has slept. A send needs long because the kernel takes bytes at
    // once while there is room: what is shorter was a wait for a CPU. Other calls never sleep.
    const SLEEPS = new Map([
        ...["accept", "accept4", ...RECEIVE, "select", "pselect6", "poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_pwait2",
            "nanosleep", "clock_nanosleep", "futex", "wait4", "waitid", "vfork", "io_uring_enter"].map(name => [name, 1000]),
        ...SEND.map(name => [name, 100000])]);

    function hasSlept(call) {
        if (/EAGAIN/.test(call[RESULT]) || /FUTEX_WAKE/.test(call[TEXT])) return false;
        return SLEEPS.has(call[NAME]) && (call[END] === null || call[END] - call[START] >= SLEEPS.get(call[NAME]));
    }

    // The arguments that the kernel fills in are not known before a call returns.
    const FILLED = {
        recvfrom: 1, read: 1, readv: 1, recvmsg: 1, accept: 1, accept4: 1, epoll_wait: 1,
        epoll_pwait: 1, epoll_pwait2: 1, wait4: 1, waitid: 1, socketpair: 1,
    };

    /** A descriptor in a sentence: the listener, conn3, libuv's eventfd. */
    function nameOf(names, descriptor) {
        const name = names.get(Number(descriptor));
        return !name ? "a descriptor of the server's own" : /^(conn|lib)/.test(name) ? name : `the ${name}`;
    }

    /** The first argument of a call. */
    function descriptorOf(text) { return Number(/\((\d+)/.exec(text)[1]); }

    function amount(call) {
        const found = /^-?\d+/.exec(call[RESULT] || "");
        return found ? Number(found[0]) : null;
    }

    function isAccept(call) { return call[NAME] === "accept" || call[NAME] === "accept4"; }

    function isOver(call, at) { return call[END] !== null && call[END] <= at; }

    // What the calls mean, in a few words: what is happening, or with which result it has ended.
    function failed({ call, error }) { return `got the error ${error} from ${call[NAME]}`; }

    function other(what) { return what.error ? failed(what) : `calls ${what.call[NAME]}`; }

    function accepting({ over, error, count, slept, client, call }) {
        if (!over) return slept ? "sleeps until a client connects" : "takes a client from the accept queue";
        if (error === "EAGAIN") return "asked for a client: the accept queue is empty";
        if (error === "EMFILE" || error === "ENFILE") return "could not accept: no descriptor is free";
        return error ? failed({ call, error }) : `has taken ${client || "a client"} from the accept queue; its descriptor is ${count}`;
    }

    function receiving({ over, error, count, slept, client, text, names }) {
        const whose = client || nameOf(names, descriptorOf(text));
        if (!over) return slept ? `sleeps until bytes of ${whose} are there` : `asks the kernel for bytes of ${whose}`;
        if (error === "EAGAIN") return `asked for bytes of ${whose}: there are none now`;
        if (error) return `got no bytes of ${whose} (${error})`;
        return count ? `has copied ${plural(count, "byte")} of ${whose} out of the kernel` : `has seen that ${whose} will send no more`;
    }

    function sending({ over, error, count, slept, client, text, names }) {
        const whose = client || nameOf(names, descriptorOf(text)), asked = Number(/", (\d+)/.exec(text)?.[1] || count);
        if (!over) return slept ? `sleeps until the kernel takes bytes for ${whose}` : `gives the kernel bytes for ${whose}`;
        if (error === "EAGAIN") return `could not send to ${whose}: its send buffer is full`;
        if (error) return `could not send to ${whose} (${error})`;
        return count < asked ? `has given the kernel only ${count} of ${asked} bytes for ${whose}: the send buffer is full` :
            `has given the kernel ${plural(count, "byte")} for ${whose}`;
    }

    function waiting({ over, error, count, slept, model, at, call }) {
        const sets = /^epoll/.test(call[NAME]) ? null : model.sets(at);
        const epoll = /^epoll_\w+\((\d+)/.exec(call[TEXT])?.[1];
        const list = (model.interest(at) || []).filter(entry => entry.epoll === Number(epoll));
        const size = sets ? sets.read.length + sets.write.length : list.length;
        const all = size === 1 ? "its descriptor" : `one of ${size || "its"} descriptors`;
        const news = list.some(({ events }) => events.includes("ET")) ? `something new happens at ${all}` : `${all} is ready`;
        if (!over) return slept ? `sleeps until ${news}` : `asks the kernel ${size === 1 ? "whether its descriptor is" : `which of ${size || "its"} descriptors are`} ready`;
        if (error) return failed({ call, error });
        return `has learned that ${count ? plural(count, "descriptor") : "no descriptor"} ${count > 1 ? "are" : "is"} ready`;
    }

    function interesting({ text, names, error, call }) {
        const [, verb, fd] = /EPOLL_CTL_(\w+), (\d+)/.exec(text) || [];
        const what = nameOf(names, fd);
        return error ? failed({ call, error }) : {
            ADD: `puts ${what} on the interest list`, MOD: `changes the events that it wants of ${what}`,
            DEL: `takes ${what} off the interest list`,
        }[verb];
    }

    function starting({ over, count, model, call }) {
        const kind = `a ${model.startedBy(call)}`;
        return over && count === null ? `could not start ${kind}` : `${over ? "has started" : "starts"} ${kind}`;
    }

    function locking({ text, over, error, count }) {
        if (text.includes("WAKE")) return !over ? "wakes threads that sleep in futex" : count ? `has woken ${plural(count, "thread")}` : "found no thread to wake";
        if (error === "EAGAIN") return "did not sleep: the value had already changed";
        return error ? failed({ call, error }) : over ? "was woken by another thread" : "sleeps until another thread wakes it";
    }

    function reaping({ call, over, error, text }) {
        if (!over) return text.includes("WNOHANG") ? "asks whether a child process has ended" : "waits for the end of a child process";
        if (error === "ECHILD") return "has no child process any more";
        return error ? failed({ call, error }) : /CLD_|WIF/.test(text) ? "has learned that a child process has ended" : "has learned that no child process has ended";
    }

    const say = (now, after = now) => ({ over, error, call }) => error ? failed({ call, error }) : over ? after : now;
    const sleep = say("sleeps for a fixed time", "has slept for a fixed time");
    const MEANINGS = {
        accept: accepting, accept4: accepting, clone: starting, clone3: starting, fork: starting, vfork: starting,
        recvfrom: receiving, recvmsg: receiving, read: receiving, readv: receiving,
        sendto: sending, sendmsg: sending, write: sending, writev: sending,
        select: waiting, pselect6: waiting, poll: waiting, ppoll: waiting,
        epoll_wait: waiting, epoll_pwait: waiting, epoll_pwait2: waiting,
        nanosleep: sleep, clock_nanosleep: sleep, epoll_ctl: interesting,
        socket: say("makes a socket"), bind: say("gives the listening socket its address"),
        listen: say("lets clients connect from now on"), epoll_create1: say("makes an epoll instance"),
        io_uring_enter: say("gives requests to io_uring, and waits for results", "has results of io_uring"),
        wait4: reaping, waitid: reaping,
        socketpair: say("makes a pair of connected sockets"), io_uring_setup: say("makes an io_uring"),
        io_uring_register: say("tells io_uring which buffers it may use"),
        futex: locking,
        close: ({ client, over, error, text, names, call }) => error ? failed({ call, error }) :
            `${over ? "has closed" : "closes"} ${client ? `the socket of ${client}` : nameOf(names, descriptorOf(text))}`,
        shutdown: ({ client, over, names, text }) => client ? `${over ? "has told" : "tells"} ${client} that nothing more will come` :
            `${over ? "has shut" : "shuts"} ${nameOf(names, descriptorOf(text))} down`,
    };

    function plural(count, word) { return `${count.toLocaleString("en-US")} ${word}${count === 1 ? "" : "s"}`; }

    class Model {
        constructor(recording) {
            this.recording = recording;
            this.calls = recording.calls;
            this.clients = recording.clients;
            this.accepted = new Map();      // client: [descriptor, time]
            this.closed = new Map();        // client: when the server has closed its last descriptor of it
            this.unreadChanges = this.clients.map(client => client.sends.map(s => [s[0], s[1]]));
            this.unreceivedChanges = this.clients.map(client => [
                ...client.receives.map(r => [r[0], -r[1]]),
                ...(client.greeting === null ? [] : [[client.greeting, -this.greetingSize()]])]);
            for (const call of this.calls) {
                const count = amount(call), number = call[CLIENT];
                if (number < 0 || count === null || call[END] === null) continue;
                if (call[NAME] === "close") this.closed.set(number, call[END]);
                if (isAccept(call) && count >= 0) this.accepted.set(number, [count, call[END]]);
                if (count <= 0) continue;
                if (RECEIVE.includes(call[NAME])) this.unreadChanges[number].push([call[END], -count]);
                // A client can receive bytes before the send returns. When a send sleeps, nobody knows
                // how many bytes the kernel has already taken: they count when it returns.
                if (SEND.includes(call[NAME])) this.unreceivedChanges[number].push([call[hasSlept(call) ? END : START], count]);
            }
            this.names = taskNames(recording.tasks);
            this.descriptorChanges = this.findDescriptors();
            this.moments = this.findMoments();
            this.start = this.moments[0];
            this.end = this.moments[this.moments.length - 1];
        }

        greetingSize() { return this.recording.server.includes("slow_command") ? 6 : 1; }

        /** False for io_uring: its bytes move without a system call for each client. */
        followsBytes() { return !this.calls.some(call => call[NAME] === "io_uring_enter"); }

        /** All times at which something happens, each once. */
        findMoments() {
            const times = new Set(this.steps());
            for (const client of this.clients) {
                for (const key of ["connecting", "connect", "greeting", "disconnect", "close"])
                    if (client[key] !== null) times.add(client[key]);
                for (const event of [...client.sends, ...client.receives]) times.add(event[0]);
            }
            return [...times].sort((a, b) => a - b);
        }

        /** The times at which a call begins or returns, or a task ends. */
        steps() {
            const times = new Set(this.recording.tasks.map(([, , , end]) => end).filter(end => end !== null));
            for (const call of this.calls) {
                times.add(call[START]);
                if (call[END] !== null) times.add(call[END]);
            }
            return [...times].sort((a, b) => a - b);
        }

        // Clients.

        clientState(number, at) {
            const client = this.clients[number];
            const passed = time => time !== null && time !== undefined && time <= at;
            if (passed(client.close)) return client.failure ? "failed" : "closed";
            if (!passed(client.connecting)) return "not started";
            if (!passed(client.connect)) return "connecting";
            if (client.greeting !== null && !passed(client.greeting) || client.greeting === null &&
                this.expectsGreeting()) return "waiting for the greeting";
            if (this.expected(number, at) > this.received(number, at))
                return this.unreceived(number, at) > 0 ? "answers wait for it" : "waiting for an answer";
            return passed(client.disconnect) ? "waiting for the close" : "idle";
        }

        expectsGreeting() { return this.clients.some(client => client.greeting !== null); }

        expected(number, at) {
            let most = 0;
            for (const send of this.clients[number].sends) if (send[0] <= at) most = send[3];
            return most;
        }

        received(number, at) {
            return this.clients[number].receives.reduce((sum, r) => sum + (r[0] <= at ? r[1] : 0), 0);
        }

        // The kernel.

        level(changes, at) {
            return changes.reduce((sum, [when, change]) => sum + (when <= at ? change : 0), 0);
        }

        /** What comes after the server has closed the socket is not kept for anybody. */
        unread(number, at) {
            const closed = this.closed.get(number) ?? Infinity;
            return closed <= at || this.isEnded(at) ? 0 : this.level(this.unreadChanges[number], at);
        }

        /** Nobody receives bytes after the client's close. Below zero is a send that sleeps. */
        unreceived(number, at) {
            const closed = this.clients[number].close ?? Infinity;
            return closed <= at || this.isEnded(at) ? 0 : Math.max(0, this.level(this.unreceivedChanges[number], at));
        }

        /** When a client leaves the accept queue: by accept, or when it or the listener is closed. */
        leavesQueue(number) {
            if (this.accepted.has(number)) return this.accepted.get(number)[1];
            const closes = this.calls.filter(call => call[NAME] === "close" && call[END] !== null && descriptorOf(call[TEXT]) === this.recording.listener);
            return Math.min(this.clients[number].close ?? Infinity, closes.length ? closes[closes.length - 1][END] : Infinity);
        }

        /** The clients that are connected and not yet accepted, the longest wait first. */
        acceptQueue(at) {
            if (!this.followsBytes()) return [];
            const waiting = [];
            this.clients.forEach((client, number) => {
                if (client.connect === null) return;
                const until = this.leavesQueue(number), since = Math.min(client.connect, until);
                if (since <= at && at < until) waiting.push([since, client.name]);
            });
            return waiting.sort((a, b) => a[0] - b[0]).map(([, name]) => name);
        }

        /** The process that a task belongs to: that of a thread is its parent's. */
        processOf(task) {
            const [kind, parent] = this.recording.tasks[task];
            return kind === "thread" && parent !== null ? this.processOf(parent) : task;
        }

        /** Does a process have what a task has opened or closed? Its own, and its parent's before the fork. */
        hasFrom(process, task, when) {
            if (this.processOf(task) === process) return true;
            const [, parent, start] = this.recording.tasks[process];
            return parent !== null && when < start && this.hasFrom(this.processOf(parent), task, when);
        }

        /** All that changes what a descriptor is: [[task, time, descriptor, name or null]]. */
        findDescriptors() {
            const changes = (this.recording.descriptors || []).map(change => change.slice(0, 4));
            for (const call of this.calls) {
                const name = call[NAME], count = amount(call), text = call[TEXT];
                if (count === null || count < 0 || call[END] === null) continue;
                const add = (descriptor, what) => changes.push([call[TASK], call[END], descriptor, what]);
                if (name === "listen") add(descriptorOf(text), "listener");
                else if (name === "epoll_create1") add(count, "epoll instance");
                else if (name === "close") add(descriptorOf(text), null);
                else if (isAccept(call) && call[CLIENT] >= 0) add(count, this.clients[call[CLIENT]].name);
            }
            return changes.sort((a, b) => a[1] - b[1]);
        }

        /** What each descriptor of a task's process is: {descriptor: name}. */
        descriptors(at, task = 0) {
            const names = new Map(), process = this.processOf(task);
            for (const [by, when, descriptor, name] of this.descriptorChanges) {
                if (when > at || !this.hasFrom(process, by, when)) continue;
                if (name) names.set(descriptor, name); else names.delete(descriptor);
            }
            return names;
        }

        /** Have all threads and processes ended? Then the kernel has closed all descriptors. */
        isEnded(at) { return this.recording.tasks.every(([, , , end]) => end !== null && end <= at); }

        /** The interest lists of all epoll instances: [{epoll, descriptor, events}]; null without epoll. */
        interest(at) {
            const list = new Map();
            let seen = false;
            for (const call of this.calls) {
                if (!isOver(call, at) || call[RESULT] !== "0") continue;
                const found = /^epoll_ctl\((\d+), EPOLL_CTL_(\w+), (\d+), (?:\{events=([\w|]+))?/.exec(call[TEXT]);
                if (found) {
                    const [epoll, descriptor] = [Number(found[1]), Number(found[3])], key = `${epoll} ${descriptor}`;
                    seen = true;
                    if (found[2] === "DEL") list.delete(key);
                    else list.set(key, { epoll, descriptor, events: (found[4] || "").replaceAll("EPOLL", ""), process: this.processOf(call[TASK]) });
                } else if (call[NAME] === "close") {
                    const closed = descriptorOf(call[TEXT]);
                    for (const [key, { epoll, descriptor, process }] of list)
                        if ((closed === epoll || closed === descriptor) && process === this.processOf(call[TASK])) list.delete(key);
                }
            }
            return !seen ? null : this.isEnded(at) ? [] : [...list.values()];
        }

        /** Those of the interest lists that are watched for input and have some. */
        ready(at) {
            const interest = this.interest(at), names = this.descriptors(at);
            return interest && interest.filter(({ events }) => events.split("|").includes("IN")).map(({ descriptor }) => descriptor)
                .filter(descriptor => {
                    const name = names.get(descriptor), number = this.clients.findIndex(client => client.name === name);
                    if (name === "listener") return this.acceptQueue(at).length > 0;
                    return number < 0 ? this.wasWritten(descriptor, at) : this.hasInput(number, at);
                });
        }

        /** Can something be read from a descriptor that the server made for itself? */
        wasWritten(descriptor, at) {
            const made = (this.recording.descriptors || []).filter(([, when, number]) => when <= at && number === descriptor).pop();
            if (!made) return false;
            let bytes = 0;
            for (const call of this.calls) {
                const count = isOver(call, at) && call[END] >= made[1] ? amount(call) : null;
                if (!(count > 0) || call[CLIENT] >= 0) continue;
                if (SEND.includes(call[NAME]) && descriptorOf(call[TEXT]) === made[4]) bytes += count;
                // Reading an eventfd empties it.
                if (RECEIVE.includes(call[NAME]) && descriptorOf(call[TEXT]) === descriptor) bytes = made[4] === descriptor ? 0 : bytes - count;
            }
            return bytes > 0;
        }

        /** The ready list, except with edge-triggered events: there it loses those that it has reported. */
        readyName() {
            return this.calls.some(call => call[TEXT].includes("EPOLLET")) ? "ready to read" : "ready list";
        }

        hasInput(number, at) {
            const left = this.clients[number].disconnect;
            return this.unread(number, at) > 0 || left !== null && left <= at;
        }

        /** The sets of select or poll in the latest such call: {call, read, write, ready}; the
         * last is null until the call returns. */
        sets(at) {
            let latest = null;
            for (const call of this.calls)
                if (call[START] <= at && /^(pselect6|select|ppoll|poll)$/.test(call[NAME])) latest = call;
            if (!latest) return null;
            const numbers = text => (text || "").match(/\d+/g)?.map(Number) || [];
            const over = isOver(latest, at), result = latest[RESULT] || "";
            if (latest[NAME].endsWith("poll")) {
                const wanted = event => [...latest[TEXT].matchAll(/\{fd=(\d+), events=([\w|]+)/g)]
                    .filter(entry => entry[2].includes(event)).map(entry => Number(entry[1]));
                return {
                    name: latest[NAME], read: wanted("POLLIN"), write: wanted("POLLOUT"),
                    ready: over ? [...result.matchAll(/\{fd=(\d+), revents/g)].map(e => Number(e[1])) : null,
                };
            }
            const found = /^\w+\(\d+, (\[[\d ]*\]|NULL), (\[[\d ]*\]|NULL)/.exec(latest[TEXT]) || [];
            return {
                name: latest[NAME], read: numbers(found[1]), write: numbers(found[2]),
                ready: over ? [...result.matchAll(/(?:in|out) \[([\d ]*)\]/g)].flatMap(e => numbers(e[1])) : null,
            };
        }

        // The server's threads and processes.

        /** The latest call of a task that has begun: its index, or -1. */
        callOf(task, at) {
            for (let index = this.firstAfter(at) - 1; index >= 0; index--)
                if (this.calls[index][TASK] === task) return index;
            return -1;
        }

        /** The latest call of all that has begun: its index, or -1. */
        latestCall(at) { return this.firstAfter(at) - 1; }

        firstAfter(at) {
            let low = 0, high = this.calls.length;
            while (low < high) {
                const middle = (low + high) >> 1;
                if (this.calls[middle][START] <= at) low = middle + 1; else high = middle;
            }
            return low;
        }

        taskState(task, at) {
            const [, , start, end] = this.recording.tasks[task];
            if (start > at) return "not started";
            if (end !== null && end <= at) return "ended";
            const index = this.callOf(task, at);
            if (index < 0 || isOver(this.calls[index], at)) return "runs, or waits for a CPU";
            const call = this.calls[index];
            return `${hasSlept(call) ? "asleep in" : "in"} ${call[NAME]}`;
        }

        /** The call as strace writes it: its result only once it has returned. */
        callText(index, at) {
            const call = this.calls[index];
            if (isOver(call, at)) return `${call[TEXT]} = ${call[RESULT]}`;
            const cut = FILLED[call[NAME]] ? call[TEXT].indexOf(",") : -1;
            const known = cut < 0 ? call[TEXT].replace(/\)$/, "") : call[TEXT].slice(0, cut) + ", ";
            return `${known} <unfinished ...>`.replace("  ", " ");
        }

        /** What a clone or fork starts: "thread" or "process". Its task is the one that follows. */
        startedBy(call) {
            const children = this.recording.tasks.filter(([, parent]) => parent === call[TASK]).sort((a, b) => a[2] - b[2]);
            const earlier = this.calls.filter(each => /^(clone|v?fork)/.test(each[NAME]) && each[TASK] === call[TASK] &&
                each[START] < call[START] && amount(each) > 0);
            return children[Math.min(earlier.length, children.length - 1)]?.[0] || "process";
        }

        /** A sentence about a call, for those who do not know it. */
        meaning(index, at) {
            const call = this.calls[index], over = isOver(call, at), count = over ? amount(call) : null;
            if (this.isEnded(at)) return "The server has ended.";
            if (this.taskState(call[TASK], at) === "ended") return `${this.subject(call[TASK])} has ended.`;
            const slept = hasSlept(call);
            const client = call[CLIENT] >= 0 ? this.clients[call[CLIENT]].name : null;
            const error = over && /^-1 (\w+)/.exec(call[RESULT])?.[1];
            const since = this.isQuiet(index, at) ? "; since then it computes or waits for a CPU" : "";
            if (error === "EINTR") {
                const task = this.subject(call[TASK]), whose = this.recording.tasks.length > 1 || since ? ` of ${task[0].toLowerCase()}${task.slice(1)}` : "";
                return `A signal interrupted the wait${whose} (EINTR)${since}.`;
            }
            const words = over && call[RESULT].startsWith("?") ? `was interrupted in ${call[NAME]}${client ? `, where it waited for ${client}` : ""}` : (MEANINGS[call[NAME]] || other)({ call, over, count, slept, client, error,
                text: call[TEXT], names: this.descriptors(call[START], call[TASK]), model: this, at });
            return `${this.subject(call[TASK])} ${words}${since}.`;
        }

        /** Has a call returned more than a millisecond ago? Of the latest call: its task has called nothing since. */
        isQuiet(index, at) {
            const end = this.calls[index][END];
            return end !== null && at - end > 1000;
        }

        subject(task) {
            const kinds = this.recording.tasks.map(([kind]) => kind), name = this.names[task];
            if (kinds.length === 1) return "The server";
            if (name === "main") return kinds.includes("process") ? "The first process" : "The main thread";
            return name[0].toUpperCase() + name.slice(1);
        }

        place(index) {
            const call = this.calls[index];
            return call && call[PLACE] >= 0 ? this.recording.places[call[PLACE]] : null;
        }

        library(index) {
            const call = this.calls[index];
            return call && call[LIBRARY] >= 0 ? this.recording.places[call[LIBRARY]] : null;
        }
    }

    function taskNames(tasks) {
        const counts = {};
        return tasks.map(([kind]) => {
            if (kind === "main") return "main";
            counts[kind] = (counts[kind] || 0) + 1;
            return `${kind} ${counts[kind]}`;
        });
    }

    /* A time axis turns a time into a position from 0 to 1 and back. By the clock the position
     * is the time; by the call each moment is as far from the next as every other. */
    class ClockAxis {
        constructor(models) {
            const first = Math.max(-50000, Math.min(...models.map(model => model.start)));
            this.start = first;
            this.end = Math.max(...models.map(model => model.end), first + 1);
        }

        position(time) {
            return Math.min(1, Math.max(0, (time - this.start) / (this.end - this.start)));
        }

        time(position) { return this.start + position * (this.end - this.start); }
    }

    class CallAxis {
        constructor(models) {
            this.times = [...new Set(models.flatMap(model => model.moments))].sort((a, b) => a - b);
            this.start = this.times[0];
            this.end = this.times[this.times.length - 1];
        }

        position(time) {
            const { times } = this, last = times.length - 1;
            if (time <= times[0]) return 0;
            if (time >= times[last]) return 1;
            let low = 0, high = last;
            while (high - low > 1) {
                const middle = (low + high) >> 1;
                if (times[middle] <= time) low = middle; else high = middle;
            }
            return (low + (time - times[low]) / (times[high] - times[low])) / last;
        }

        time(position) {
            const { times } = this, last = times.length - 1;
            const exact = Math.min(1, Math.max(0, position)) * last, low = Math.floor(exact);
            if (low >= last) return times[last];
            return times[low] + (exact - low) * (times[low + 1] - times[low]);
        }
    }

    function nextStep(times, at) { return times.find(time => time > at) ?? times[times.length - 1]; }

    function previousStep(times, at) {
        let found = times[0];
        for (const time of times) if (time < at) found = time;
        return found;
    }

    root.Replay = Object.assign(root.Replay || {}, {
        Model, ClockAxis, CallAxis, nextStep, previousStep, amount, hasSlept,
        TASK, START, END, NAME, TEXT, RESULT, CLIENT, PLACE, LIBRARY,
    });
})(globalThis);
