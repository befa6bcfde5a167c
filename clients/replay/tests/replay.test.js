/* Tests of the page's scripts that need no document: node --test. */
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
require("../page/model.js");
require("../page/search.js");

const { Model, ClockAxis, CallAxis, nextStep, previousStep } = globalThis.Replay;
const FOLDER = path.join(__dirname, "../recordings");
const load = id => JSON.parse(fs.readFileSync(path.join(FOLDER, `${id}.json`), "utf8"));
const ids = fs.readdirSync(FOLDER).map(name => name.replace(".json", ""));

test("a call shows its result only once it has returned", () => {
    const model = new Model(load("6-five"));
    const index = model.calls.findIndex(call => call[3] === "recvfrom" && call[5] === "14");
    const [, start, end, , text] = model.calls[index];
    assert.equal(model.callText(index, end), `${text} = 14`);
    assert.match(model.callText(index, start), /^recvfrom\(\d+, <unfinished \.\.\.>$/);
});

test("the axes turn a time into a position and back", () => {
    for (const Axis of [ClockAxis, CallAxis]) {
        const axis = new Axis([new Model(load("1-five")), new Model(load("2-five"))]);
        let before = -1;
        for (let i = 0; i <= 200; i++) {
            const time = axis.start + (axis.end - axis.start) * i / 200;
            const position = axis.position(time);
            assert.ok(position >= before && position <= 1);
            assert.ok(Math.abs(axis.time(position) - time) < 1);
            before = position;
        }
    }
});

test("on the axis by calls every moment has the same room", () => {
    const axis = new CallAxis([new Model(load("6-five"))]);
    axis.times.forEach((time, index) =>
        assert.ok(Math.abs(axis.position(time) - index / (axis.times.length - 1)) < 1e-9));
});

test("steps go forth and back, and stay within the run", () => {
    const times = [1, 5, 9];
    assert.equal(nextStep(times, 0), 1);
    assert.equal(nextStep(times, 1), 5);
    assert.equal(nextStep(times, 9), 9);
    assert.equal(previousStep(times, 9), 5);
    assert.equal(previousStep(times, 6), 5);
    assert.equal(previousStep(times, 1), 1);
});

test("no queue is ever negative, in any recording, except while a send sleeps", () => {
    for (const id of ids) {
        const model = new Model(load(id));
        if (!model.followsBytes()) continue;
        for (const time of model.moments)
            model.clients.forEach((client, number) => {
                assert.ok(model.unread(number, time) >= 0, `${id} ${client.name} ${time}`);
                const sleeping = model.calls.some(call => call[6] === number && call[3] === "sendto" &&
                    call[1] <= time && time < call[2] && globalThis.Replay.hasSlept(call));
                assert.ok(sleeping || model.level(model.unreceivedChanges[number], time) >= 0, `${id} ${client.name} ${time}`);
                assert.ok(model.unreceived(number, time) >= 0, `${id} ${client.name} ${time}`);
            });
    }
});

test("in step 1 at most one client is served, the others wait in the accept queue", () => {
    const model = new Model(load("1-five"));
    const most = Math.max(...model.moments.map(time => model.acceptQueue(time).length));
    assert.ok(most >= 4, `${most}`);
    for (const time of model.moments) {
        const served = model.clients.filter((_, number) =>
            ["idle", "waiting for an answer", "answers wait for it"].includes(model.clientState(number, time)));
        assert.ok(served.length <= 1);
    }
});

test("clients that are never accepted wait in the accept queue until the listener is closed", () => {
    const model = new Model(load("1-stop")), closed = model.calls.find(call => call[4] === `close(${model.recording.listener})`);
    assert.deepEqual(model.acceptQueue(closed[1]), ["conn1", "conn2", "conn3", "conn4"]);
    assert.deepEqual(model.acceptQueue(closed[2]), []);
});

test("a client that sends before its greeting has bytes in the kernel", () => {
    const model = new Model(load("1-early"));
    assert.ok(model.moments.some(time => model.acceptQueue(time).length > 0 &&
        model.clients.some((_, number) => model.unread(number, time) === 5)));
});

test("the slow reader makes the server ask for EPOLLOUT, and drop it", () => {
    const model = new Model(load("6-slow-reader"));
    const asked = model.moments.map(time => (model.interest(time) || []).some(({ events }) => events.includes("OUT")));
    assert.ok(asked.includes(true));
    assert.equal(asked[asked.length - 1], false);
});

test("a client that is watched for room only is not on the ready list", () => {
    const model = new Model(load("6-slow-reader"));
    const time = model.moments.find(at => (model.interest(at) || []).some(({ events }) => events === "OUT") && model.unread(0, at) > 0);
    const { descriptor } = model.interest(time).find(({ events }) => events === "OUT");
    assert.ok(!model.ready(time).includes(descriptor));
});

/** A run of step 6 that is cut down to these calls: [task, start, end, name, text, result, client]. */
function madeOf(calls, rest = {}) {
    return new Model({ ...load("6-five"), clients: [], samples: [], calls: calls.map(call => [...call, -1, -1]), ...rest });
}

test("a descriptor of the server's own is what the recording says that it is", () => {
    const model = madeOf([
        [0, 10, 11, "epoll_ctl", "epoll_ctl(4, EPOLL_CTL_ADD, 0, {events=EPOLLIN, data=0})", "0", -1],
        [0, 20, 21, "epoll_ctl", "epoll_ctl(4, EPOLL_CTL_ADD, 9, {events=EPOLLIN, data=9})", "0", -1],
        [0, 30, 31, "write", "write(0, \"\\1\", 8)", "8", -1],
        [0, 40, 41, "read", "read(0, \"\\1\", 8)", "8", -1],
        [0, 50, 51, "close", "close(0)", "0", -1],
    ], { descriptors: [[0, 1, 0, "wake-up", 0], [0, 2, 9, "libuv's eventfd", 9]], tasks: [["main", null, 0, null]] });
    assert.deepEqual([...model.descriptors(25)], [[0, "wake-up"], [9, "libuv's eventfd"]]);
    assert.match(model.meaning(1, 21), /puts libuv's eventfd on the interest list/);
    assert.match(model.meaning(4, 50), /closes the wake-up\.$/);
    assert.deepEqual([29, 31, 41].map(time => model.ready(time)), [[], [0], []]);
    assert.deepEqual(model.interest(51).map(({ descriptor }) => descriptor), [9]);
});

test("each epoll instance has a list of its own, and none after the end", () => {
    const model = madeOf([
        [0, 10, 11, "epoll_ctl", "epoll_ctl(4, EPOLL_CTL_ADD, 6, {events=EPOLLIN, data=0})", "0", -1],
        [1, 20, 21, "epoll_ctl", "epoll_ctl(5, EPOLL_CTL_ADD, 7, {events=EPOLLIN, data=0})", "0", -1],
        [1, 30, null, "epoll_wait", "epoll_wait(5, [], 256, -1", null, -1],
        [2, 40, 41, "close", "close(6)", "0", -1],
    ], { tasks: [["main", null, 0, 90], ["thread", 0, 5, 80], ["process", 0, 6, 90]] });
    assert.deepEqual(model.interest(50).map(({ epoll, descriptor }) => [epoll, descriptor]), [[4, 6], [5, 7]]);
    assert.match(model.meaning(2, 50), /sleeps until its descriptor is ready/);
    assert.deepEqual(model.interest(90), []);
});

test("an edge-triggered server does not sleep until a descriptor is ready", () => {
    const model = new Model(load("6-edge_wrong-edge"));
    const index = model.calls.findLastIndex(call => call[3] === "epoll_wait" && call[2] - call[1] > 100000);
    assert.match(model.meaning(index, model.calls[index][1]), /sleeps until something new happens at one of 3 descriptors\.$/);
});

test("step 2 starts threads, and its variant processes", () => {
    for (const [id, kind] of [["2-five", "thread"], ["2-fork-five", "process"], ["8-slow_command-mode-worker-slow-command", "process"]]) {
        const model = new Model(load(id)), index = model.calls.findLastIndex(call => call[3].startsWith("clone") && call[2]);
        const words = model.meaning(index, model.calls[index][2]);
        assert.ok(words.endsWith(` has started a ${kind}.`), `${id}: ${words}`);
    }
});

test("only calls that can sleep are asleep", () => {
    const call = (name, took, text = name, result = "0") => globalThis.Replay.hasSlept([0, 0, took, name, text, result, -1, -1, -1]);
    assert.ok(call("recvfrom", 5000) && call("epoll_wait", 5000) && call("sendto", 200000) && call("accept", null));
    assert.ok(!call("close", 5000) && !call("clone3", 5000) && !call("sendto", 5000) && !call("recvfrom", 500));
    assert.ok(!call("recvfrom", 5000, "", "-1 EAGAIN") && !call("futex", 5000, "futex(0x1, FUTEX_WAKE_PRIVATE, 1)"));
});

test("a futex call that did not sleep, and one that woke nobody, say so", () => {
    const model = madeOf([
        [0, 10, 12, "futex", "futex(0x1, FUTEX_WAIT_PRIVATE, 2, NULL)", "-1 EAGAIN", -1],
        [0, 20, 22, "futex", "futex(0x1, FUTEX_WAKE_PRIVATE, 1)", "0", -1],
        [0, 30, 32, "waitid", "waitid(P_ALL, 0, {}, WNOHANG|WEXITED, NULL)", "0", -1],
    ], { tasks: [["main", null, 0, null]] });
    assert.deepEqual([0, 1, 2].map(index => model.meaning(index, 40)), ["The server did not sleep: the value had already changed.",
        "The server found no thread to wake.", "The server has learned that no child process has ended."]);
});

test("bytes that arrive after the server has closed the socket lie nowhere", () => {
    const model = new Model(load("6-stop"));
    model.clients.forEach((client, number) => assert.equal(model.unread(number, model.end), 0, client.name));
});

test("the bytes of a send that sleeps count when it returns", () => {
    for (const id of ["1-slow-reader", "2-slow-reader", "3-slow-reader"]) {
        const model = new Model(load(id)), call = model.calls.find(each => each[3] === "sendto" && globalThis.Replay.hasSlept(each));
        const [, start, end, , , result, number] = call;
        const before = model.unreceived(number, start - 1);
        assert.ok(model.unreceived(number, start) <= before && model.unreceived(number, end - 1) <= before, id);
        assert.ok(model.unreceived(number, end) > 0 && model.unreceived(number, end) <= Number(result) + before, id);
    }
});

test("no byte is left after the client's close, or after the server's end", () => {
    for (const id of ids) {
        const model = new Model(load(id)), ended = Math.max(...model.recording.tasks.map(([, , , end]) => end ?? Infinity));
        model.clients.forEach((client, number) => {
            assert.equal(model.unreceived(number, client.close), 0, `${id} ${client.name}`);
            if (!model.followsBytes() || ended === Infinity) return;
            assert.deepEqual([model.unread(number, ended), model.unreceived(number, ended)], [0, 0], `${id} ${client.name}`);
        });
    }
});

test("select's sets: what was asked about, and what is left of it", () => {
    const model = new Model(load("5-five"));
    const call = model.calls.find(each => each[3] === "pselect6" && each[5].startsWith("1 "));
    assert.equal(model.sets(call[1]).ready, null);
    const { read, ready } = model.sets(call[2]);
    assert.equal(ready.length, 1);
    assert.ok(read.includes(ready[0]));
});

test("each call of each recording has a sentence, before and after it returns", () => {
    for (const id of ids) {
        const model = new Model(load(id));
        model.calls.forEach((call, index) => {
            for (const at of [call[1], call[2] ?? call[1]]) {
                const words = model.meaning(index, at);
                assert.match(words, /^(The (server|main thread|first process)|Thread \d+|Process \d+|A signal) [a-z].*[^.]\.$/, `${id} ${index}`);
                assert.doesNotMatch(words, /undefined|null|NaN|calls \w+\.$/, `${id}: ${call[4]}`);
            }
        });
    }
});

test("a run ends when the last thread or process has ended, and says so", () => {
    for (const id of ids) {
        const model = new Model(load(id)), ends = model.recording.tasks.map(([, , , end]) => end);
        if (ends.includes(null)) continue;
        assert.ok(model.end >= Math.max(...ends), id);
        assert.ok(model.steps().includes(Math.max(...ends)), id);
        assert.equal(model.meaning(model.latestCall(model.end), model.end), "The server has ended.", id);
    }
});

test("a close that has returned is told in the past", () => {
    const model = new Model(load("1-stop")), index = model.calls.findLastIndex(call => call[4] === `close(${model.recording.listener})`);
    const [, start, end] = model.calls[index];
    assert.deepEqual([start, end].map(at => model.meaning(index, at)), ["The server closes the listener.", "The server has closed the listener."]);
});

test("a millisecond after the latest call the sentence says that the server computes", () => {
    const model = new Model(load("8-slow_command-mode-block-slow-command")), index = model.latestCall(200000);
    const end = model.calls[index][2], since = /; since then it computes or waits for a CPU\.$/;
    assert.ok(end < 199000, `${end}`);
    assert.doesNotMatch(model.meaning(index, end + 1000), since);
    assert.match(model.meaning(index, end + 1001), since);
    assert.match(model.meaning(index, 200000), since);
});

test("answers wait for a client that does not read", () => {
    for (const id of ["1-slow-reader", "6-slow-reader"]) {
        const model = new Model(load(id)), states = new Set();
        for (const at of model.moments)
            model.clients.forEach((_, number) => {
                const state = model.clientState(number, at), ready = model.unreceived(number, at) > 0;
                if (state === "answers wait for it") assert.ok(ready, `${id} ${at}`);
                if (state === "waiting for an answer") assert.ok(!ready, `${id} ${at}`);
                states.add(state);
            });
        assert.ok(states.has("answers wait for it"), id);
    }
});

test("a signal interrupts a wait", () => {
    const model = new Model(load("6-five")), index = model.calls.findIndex(call => /EINTR/.test(call[5]));
    assert.equal(model.meaning(index, model.calls[index][2]), "A signal interrupted the wait (EINTR).");
});

test("a task without a call is not said to run: it can wait for a CPU", () => {
    for (const id of ids) {
        const model = new Model(load(id));
        for (const at of model.moments)
            model.recording.tasks.forEach((_, task) => assert.match(model.taskState(task, at),
                /^(not started|ended|runs, or waits for a CPU|(asleep )?in \w+)$/, id));
    }
});

test("a sentence tells the result only once the call has returned", () => {
    const model = new Model(load("1-five"));
    const of = (name, result) => model.calls.findIndex(call => call[3] === name && call[5] === result);
    const received = of("recvfrom", "14"), accepted = model.calls.findIndex(call => /^accept/.test(call[3]) && call[2] - call[1] > 1000);
    assert.match(model.meaning(received, model.calls[received][2]), /^The server has copied 14 bytes of conn\d out of the kernel\.$/);
    assert.doesNotMatch(model.meaning(received, model.calls[received][1]), /14/);
    assert.equal(model.meaning(accepted, model.calls[accepted][1]), "The server sleeps until a client connects.");
});

test("the search finds headings first, and only where all words are", () => {
    const index = [{ page: "A", title: "Other", text: "select and epoll" }, { page: "B", title: "select", text: "" }];
    assert.deepEqual(globalThis.Search.find(index, "select").map(e => e.page), ["B", "A"]);
    assert.deepEqual(globalThis.Search.find(index, "select epoll").map(e => e.page), ["A"]);
    assert.deepEqual(globalThis.Search.find(index, " "), []);
});
