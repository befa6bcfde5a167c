#!/usr/bin/env python3
"""check-same.py, check-distance.py and check-layers.py can fail. Each rule gets a small tree
that breaks only this rule, and must name the place."""

import contextlib
import importlib.util
import io
import pathlib
import shutil
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def load(name):
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"),
                                                  str(HERE / (name + ".py")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TreeTest(unittest.TestCase):
    """A tree to put files in, and the check under test run over it."""

    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="checks-")).resolve()
        self.addCleanup(shutil.rmtree, self.tree)

    def put(self, path, text=""):
        path = self.tree / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run_check(self, *arguments):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = self.check.main(self.tree, *arguments)
        lines = out.getvalue().splitlines()
        red = [line for line in lines if line.startswith("not ok")]
        self.assertEqual(status, 1 if red else 0)
        self.assertEqual(lines[0], f"1..{sum('ok ' in line[:7] for line in lines)}")
        return red, [line[2:] for line in lines if line.startswith("# ")]


class SameTest(TreeTest):
    check = load("check-same")
    COMMON = "int main(void)\n{\n    return 0;\n}\n"

    def steps(self, *texts):
        for number, text in enumerate(texts, 1):
            self.put(f"step{number}_x/server.c", text)

    def test_same(self):
        self.steps(self.COMMON, "int x(int a,\n      int b)\n{\n}\n" + self.COMMON)
        self.assertEqual(self.run_check([("main", "1 2")]), ([], []))

    def test_a_line_differs(self):
        self.steps(self.COMMON, self.COMMON.replace("0", "1"))
        red, said = self.run_check([("main", "1 2")])
        self.assertEqual(red, ["not ok 1 - main is the same in steps 1 2"])
        self.assertIn("-    return 0;", said)
        self.assertIn("+    return 1;", said)
        self.assertIn("+++ step2_x/server.c:1", said)

    def test_a_comment_differs(self):
        self.steps(self.COMMON, self.COMMON.replace("0;", "0; /* well */"))
        self.assertEqual(len(self.run_check([("main", "1 2")])[0]), 1)

    def test_missing_function(self):
        self.steps(self.COMMON, "int main(void);\nint mainly(void)\n{\n}\n")
        self.assertIn("step2_x/server.c does not define main",
                      self.run_check([("main", "1 2")])[1])

    def test_missing_file(self):
        self.steps(self.COMMON)
        self.assertIn("there is no such source: 2/pool",
                      self.run_check([("main", "1 2/pool")])[1])

    def test_variant(self):
        self.steps(self.COMMON)
        self.put("step1_x/variants/pool.c", self.COMMON)
        self.assertEqual(self.run_check([("main", "1 1/pool")])[0], [])

    def test_a_repeat_that_is_not_listed(self):
        self.steps(self.COMMON, self.COMMON)
        self.assertIn("main is the same in step1_x/server.c and step2_x/server.c",
                      self.run_check([])[1])


class DistanceTest(TreeTest):
    check = load("check-distance")
    ONE = "/* Step 1. */\nint a;\n\nint b;\n"

    def steps(self, one, other):
        self.put("step1_x/server.c", one)
        self.put("step2_x/server.c", other)

    def test_lines_removed_and_added_count(self):
        self.steps(self.ONE, self.ONE.replace("int a", "long a") + "int c;\n")
        self.assertEqual(self.run_check([("1", "2", 3)]), ([], []))
        red, said = self.run_check([("1", "2", 2)])
        self.assertEqual(red, ["not ok 1 - 1 and 2 differ by at most 2 lines"])
        self.assertEqual(said, ["they differ by 3: make diff A=1 B=2"])

    def test_empty_lines_and_the_first_comment_do_not_count(self):
        self.steps(self.ONE, "/* Step 2,\n * at length. */\n\nint a;\nint b;\n\n\n")
        self.assertEqual(self.run_check([("1", "2", 0)]), ([], []))

    def test_a_later_comment_counts(self):
        self.steps(self.ONE, self.ONE + "/* more */\n")
        self.assertEqual(len(self.run_check([("1", "2", 0)])[0]), 1)

    def test_a_frequent_line_is_still_the_same_line(self):
        self.steps("x;\n" + "}\n" * 300, "y;\n" + "}\n" * 300)
        self.assertEqual(self.run_check([("1", "2", 2)]), ([], []))

    def test_a_variant(self):
        self.steps(self.ONE, self.ONE)
        self.put("step2_x/variants/pool.c", self.ONE + "int c;\n")
        self.assertEqual(len(self.run_check([("2", "2/pool", 0)])[0]), 1)
        self.assertEqual(self.run_check([("2", "2/pool", 1)])[0], [])

    def test_a_server_that_does_not_exist(self):
        self.steps(self.ONE, self.ONE)
        self.assertIn("there is no server 2/pool", self.run_check([("1", "2/pool", 9)])[1])


class LayersTest(TreeTest):
    check = load("check-layers")
    SERVER = """\
/* Step.
 *
 *   Wait happens in   recv
 *   Breaks when       never
 */
#include "net.h"
static int accept_client(void)
{
}
static void serve_client(int a,
                         int b)
{
}
static void run_server(void)
{
}
int main(void)
{
}
"""

    def setUp(self):
        super().setUp()
        for name in "echo", "net", "conn", "server", "address", "stats", "stream":
            self.put(f"common/{name}.h")
        self.put("common/net.c", '#include "net.h"\n#include <errno.h>\n')
        self.put("step8_ae/ae.h")
        for step in "step1_a", "step8_ae":
            self.put(step + "/server.c", self.SERVER)
            self.put(step + "/README.md", "# x\n")

    def expect(self, rule, *places):
        red, said = self.run_check()
        self.assertEqual(len(red), 1, (red, said))
        self.assertIn(rule, red[0])
        for place in places:
            self.assertTrue(any(place in line for line in said), said)

    def test_a_good_tree(self):
        self.put("clients/load.c", '#include "ae.h"\n')
        self.put("clients/load_alarm.c", "#ifdef __linux__\n#include <sys/timerfd.h>\n#endif\n")
        self.assertEqual(self.run_check(), ([], []))

    def test_upward_include(self):
        self.put("common/net.c", '\n#include "server.h"\n')
        self.expect("what its layer may know", "common/net.c:2: #include server.h")

    def test_conn_in_a_step_with_stacks(self):
        self.put("step1_a/server.c", self.SERVER.replace("net.h", "conn.h"))
        self.expect("what its layer may know", "step1_a/server.c:6")

    def test_ae_uses_common(self):
        self.put("step8_ae/ae_poll.c", '#include "net.h"\n')
        self.expect("what its layer may know", "step8_ae/ae_poll.c:1")

    def test_missing_header(self):
        self.put("common/net.c", '#include "nets.h"\n')
        self.expect("what its layer may know", "no such file")

    def test_a_source_without_a_place(self):
        self.put("common/extra.c")
        self.expect("what its layer may know", "common/extra.c: LAYERS has no place")

    def test_a_file_of_another_step(self):
        self.put("step1_a/tests/x.h")
        self.put("step8_ae/tests/t.c", '#include "../../step1_a/tests/x.h"\n')
        self.expect("another step's file", "step8_ae/tests/t.c:1")

    def test_another_step_in_a_makefile(self):
        self.put("step1_a/Makefile", "# not ../step8_ae\nOBJS = ../step8_ae/ae.o\n")
        self.expect("another step's file", "step1_a/Makefile:2")

    def test_another_step_in_a_makefile_by_the_root(self):
        self.put("step1_a/Makefile", "X := $(ROOT)/step1_a/x\nY := $(ROOT)/step8_ae/tests\n")
        self.expect("another step's file", "step1_a/Makefile:2")

    def test_what_may_be_borrowed(self):
        self.put("step4_nonblocking_poll/server.c", self.SERVER)
        self.put("step4_nonblocking_poll/README.md", "# x\n")
        self.put("step4_nonblocking_poll/Makefile", "demo: ; $(MAKE) -C $(ROOT)/step5_select\n")
        self.assertEqual(self.run_check(), ([], []))
        self.put("step4_nonblocking_poll/Makefile", "OBJS = $(ROOT)/step6_epoll/x.o\n")
        self.expect("another step's file", "step4_nonblocking_poll/Makefile:1")

    def test_a_client_includes_common(self):
        self.put("clients/load.c", '#include "net.h"\n')
        self.expect("clients know the wire", "clients/load.c:1")

    def test_common_includes_a_client(self):
        self.put("clients/load/hist.h")
        self.put("common/tests/test_x.c", '#include "hist.h"\n')
        self.expect("nothing in common/", "common/tests/test_x.c:1")

    def test_an_engine_with_a_socket(self):
        self.put("common/echo.h", "#  include <sys/socket.h>\n")
        self.expect("protocol engine", "common/echo.h:1")

    def test_uv_outside_step_7(self):
        self.put("common/options.c", "#include <uv.h>\n")
        self.expect("model's own header", "common/options.c:1")

    def test_linux_only(self):
        self.put("common/net.c", "#ifdef __linux__\n#include <sys/epoll.h>\n#else\n"
                 "#include <sys/eventfd.h>\n#endif\n")
        self.expect("only Linux has", "common/net.c:4")

    def test_linux_only_after_the_guard(self):
        self.put("common/net.c", "#ifndef __linux__\n#if X\n#include <linux/tcp.h>\n#endif\n"
                 "#endif\n")
        self.expect("only Linux has", "common/net.c:3")

    def test_a_library_that_prints(self):
        self.put("common/conn.c", '/* printf( */ char *s = "exit(1)";\n'
                 'snprintf(b, 1, "x"); c->exit(1); my_abort();\nfprintf(stderr, "x");\n')
        self.expect("neither print nor exit", "common/conn.c:3: calls fprintf")

    def test_stream_in_a_step_with_objects(self):
        self.put("step4_a/server.c", self.SERVER.replace("net.h", "stream.h"))
        self.put("step4_a/README.md", "# x\n")
        self.expect("what its layer may know", "step4_a/server.c:6")

    def test_a_library_that_exits(self):
        self.put("step8_ae/ae.c", "void f(void)\n{\n    abort ();\n}\n")
        self.expect("neither print nor exit", "step8_ae/ae.c:3: calls abort")

    def test_a_server_without_its_labels(self):
        self.put("step1_a/server.c", self.SERVER.replace("Breaks", "Fails"))
        self.expect("when it breaks", 'no line "Breaks when"')

    def test_a_server_without_run_server(self):
        self.put("step1_a/server.c", self.SERVER.replace("run_server", "loop"))
        self.expect("same functions", "ends with loop, main")

    def test_a_server_without_serve_client(self):
        self.put("step1_a/server.c", self.SERVER.replace("serve_client", "serve"))
        self.expect("same functions", "step1_a/server.c: neither serve_client nor")

    def test_a_server_with_accept_and_pump(self):
        self.put("step8_ae/server.c", self.SERVER.replace("serve_client", "pump_client"))
        self.assertEqual(self.run_check(), ([], []))

    def test_waits_by_the_time_of_day(self):
        self.put("common/net.c", "/* time( */ char *s = \"time(\"; c->time(1); my_time(2);\n"
                 "clock_gettime(CLOCK_REALTIME, &t);\n")
        self.expect("time of day", "common/net.c:2: uses CLOCK_REALTIME")

    def test_a_timed_wait_by_the_time_of_day(self):
        self.put("step1_a/demos/x.c", "\npthread_cond_timedwait(&c, &m, &t);\nnanotime (0);\n")
        self.expect("time of day", "step1_a/demos/x.c:2: uses pthread_cond_timedwait")

    def test_clients_and_tests_may_ask_for_the_time_of_day(self):
        self.put("clients/load.c", "time(NULL);\n")
        self.put("common/tests/test_x.c", "srand(time(NULL));\n")
        self.assertEqual(self.run_check(), ([], []))

    def test_a_long_readme(self):
        self.put("step1_a/README.md", "x\n" * 61)
        self.expect("at most 60 lines", "step1_a/README.md has 61")

    def test_no_readme(self):
        (self.tree / "step1_a/README.md").unlink()
        self.expect("at most 60 lines", "step1_a/ has none")

    def test_every_rule_is_broken_above(self):
        """A rule without a test would go unnoticed."""
        text = pathlib.Path(__file__).read_text(encoding="utf-8")
        for promise, _ in self.check.RULES:
            words = [part for part in text.split('self.expect("')[1:]
                     if part.partition('"')[0] in promise]
            self.assertTrue(words, promise)


if __name__ == "__main__":
    unittest.main()
