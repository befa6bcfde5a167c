# Eight echo servers, one protocol, one client.
#
## make                build everything; installs nothing
## make demo           watch the servers of all steps serve the same five clients
##                       STEPS=1,2,6: only these steps; VARIANTS=1: their variants as well
##                       N=5: how many clients; SCALE=0.2: length of the pauses (1 for a class)
##                       SVG=FILE: also draw this very run as a picture
## make run STEP=6     start one server; STEP=6/edge: a variant; ARGS='--quiet 8080'
## make fleet          run three servers behind HAProxy: kill one, restart all, slow one down
##                       ARGS='--rate 300': see clients/fleet/fleet.py --help
## make trace STEP=6   the system calls of one server while it serves two clients (strace)
## make diff A=5 B=6   what changes from one server to another; B=6/edge: a variant
##                       A=1 B=4 is the turning point of the course
##                       without A and B: the pairs worth reading, and how much they differ
##
## make grade SERVER=PATH   grade a server, yours or ours, stage by stage; PATH: a program or
##                       a folder, which is built; STAGE=2: only this stage; HINT=1: another
##                       hint; ALL=1: go on after a failure; ARGS: for the server
## make starter LANG=c DIR=PATH   a folder to begin with: c, cpp, go, java, javascript, python
##                       or rust
## make exercise STEP=6 DIR=PATH   a step of ours with functions to fill in
## make gradescope.zip   an autograder package, as build/gradescope.zip; see clients/TEACHING.md;
##                       COURSE=FILE: of your own course
##
## make check          test everything; make test is the same
##                       STEPS=1,2: only these steps
## make check-full     run all checks below except bench, each in full: takes over an hour
##                       STAGE="lint memcheck": only these targets
## make docs           run every command that the documents show, and compare what it prints
##                       FILE=README.md: only this; FULL=1: also what takes long; UPDATE=1: write
##                       into the documents what the run printed
## make lint           run every analyser that is installed, and check the prose
## make format         lay out the C sources; make format-check: only report
## make memcheck       run servers under valgrind
## make fuzz           run libFuzzer; SECONDS=30 for each target
## make coverage       report which lines the tests reach
## make matrix         build and test with other compilers, flags, sanitizers and musl
##                       ROW="musl threads": only these rows
## make dockerfile-check   carry out common/build-aux/Dockerfile in a bare Debian; needs root
## make container-check    build it with buildah, which is a container engine; needs root
## make bench-check    check what the course says about cost, as ratios
## make claims         measure what people say about servers: is it true?
##                       ONLY=name: one claim, with its working; WRITE=1: write the page again
## make bench          measure what each server costs: five minutes
##                       QUICK=1: under one minute; PEERS=1: Redis too; STEPS=5,6: only these;
##                       ROUNDS=7: this many rounds, even if it takes longer (else 3)
## make page           the course as a page with recorded runs, in build/page; needs node
## make record         record the runs of that page again, in clients/replay/recordings (strace)
##                       STEPS=5,6/edge: only these servers
##                       SERVER=PROGRAM: your own, for make page; ARGS: for the server
##
## make compile_commands.json   for editors: how each file is compiled; needs bear
## make clean          remove everything that was built
##
## Variables: CC, CFLAGS (-O2 -g), CPPFLAGS, LDFLAGS; V=1: show the commands;
## SAN=address,undefined or SAN=thread: build with sanitizers; BACKEND=epoll, kqueue, poll or
## select: the back-end of step 8. demo, check and bench install missing tools and libraries;
## NO_INSTALL=1: they only say what is missing. STEP and STEPS mean the same.
##
## In a step's directory: make, make run, make demo, make trace, make diff B=6, make check,
## make clean. There VARIANT=edge chooses a variant for run and trace.

include common/build-aux/environment.mk

DIRECTORIES := $(sort $(wildcard step[0-9]*_*))
number = $(patsubst step%,%,$(firstword $(subst _, ,$(1))))
NUMBERS := $(foreach s,$(DIRECTORIES),$(call number,$s))
comma := ,
ASKED := $(strip $(subst $(comma), ,$(or $(STEP),$(STEPS))))
WANTED := $(or $(ASKED),$(NUMBERS))
STEP_LIST := $(subst $() ,$(comma),$(WANTED))
CHOSEN := $(foreach n,$(WANTED),$(filter step$(n)_%,$(DIRECTORIES)))
STAGES = $(shell sed -n "s/^stages='\(.*\)'/\1/p" common/tools/check-full.sh)

.PHONY: all page record $(DIRECTORIES) clients common/lessons tests demo fleet run trace diff grade \
        starter exercise gradescope.zip check test check-full docs bench bench-check claims coverage \
        memcheck dockerfile-check container-check fuzz matrix lint format format-check \
        compile_commands.json clean help \
        known-steps all-steps known-stages need-build setup-build setup-check

all: $(DIRECTORIES) clients common/lessons

$(DIRECTORIES) clients common/lessons: need-build
	@$(MAKE) --no-print-directory -C $@

known-steps:
	@test -z "$(filter-out $(NUMBERS),$(WANTED))" || { \
	    echo "no step $(filter-out $(NUMBERS),$(WANTED)): there are $(NUMBERS)" >&2; exit 2; }
all-steps:
	@test -z "$(ASKED)" || { \
	    echo "STEP and STEPS are for demo, check and bench: this takes all steps" >&2; exit 2; }
known-stages:
	@test -z "$(filter-out $(STAGES),$(STAGE))" || { \
	    echo "no stage $(filter-out $(STAGES),$(STAGE)): there are $(STAGES)" >&2; exit 2; }

# Says what is missing to build these steps, and stops. Installs nothing.
GOALS := $(foreach s,$(filter $(DIRECTORIES),$(MAKECMDGOALS)),$(call number,$s))
need-build:
	@NO_INSTALL=1 sh common/build-aux/setup.sh build $(or $(GOALS),$(WANTED))
	$(if $(BACKEND),@$(MAKE) --no-print-directory -C step8_ae known-backend)
setup-build:
	@sh common/build-aux/setup.sh build $(WANTED)
setup-check:
	@sh common/build-aux/setup.sh check $(WANTED)

# The installation comes first. A second make then sees what was installed.
demo: known-steps setup-build
	@$(MAKE) --no-print-directory $(CHOSEN)
	@clients/demo.py --clients $(or $(N),5) --scale $(or $(SCALE),0.2) \
	    --steps $(STEP_LIST) \
	    $(if $(VARIANTS),--variants) $(if $(SVG),--svg '$(SVG)')

fleet: all-steps setup-build
	@$(MAKE) --no-print-directory step4_nonblocking_poll step6_epoll
	@clients/fleet/fleet.py $(ARGS)

tests: known-steps $(CHOSEN) clients
	@for part in common common/lessons clients $(CHOSEN); do \
	    $(MAKE) --no-print-directory -C $$part tests || exit 1; done

# One job for each processor, unless -j says how many. (make 3.81 names no -j here.)
BUILD_JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1))
check: known-steps setup-check
	@$(MAKE) --no-print-directory $(BUILD_JOBS) tests
	@common/tests/check-all.py $(if $(ASKED),--steps $(STEP_LIST))

dockerfile-check container-check:
	@common/tools/check-full.sh $@
check-full: all-steps known-stages setup-check
	@sh common/build-aux/setup.sh full
	@sh common/build-aux/setup.sh cross
	@$(MAKE) --no-print-directory tests
	@common/tools/check-full.sh $(STAGE)

test: check

# The whole tree, because the documents use all of it
docs: all-steps setup-build
	@$(MAKE) --no-print-directory all
	@common/tools/docs.py $(if $(filter-out 0,$(FULL)),--full) $(if $(filter-out 0,$(UPDATE)),--update) \
	    $(FILE)

# STEP=6 or STEP=6/edge
ONE_STEP := $(filter step$(firstword $(subst /, ,$(ASKED)))_%,$(DIRECTORIES))
run trace:
	@test -n "$(filter 1,$(words $(ASKED)))" || { \
	    echo "usage: make $@ STEP=6 [ARGS=...], or for a variant STEP=6/edge" >&2; exit 2; }
	@test -n "$(ONE_STEP)" || { \
	    echo "no step $(ASKED): there are $(NUMBERS)" >&2; exit 2; }
	@$(MAKE) --no-print-directory -C $(ONE_STEP) $@ VARIANT=$(word 2,$(subst /, ,$(ASKED)))

# A source and what A and B call it: 6 is step6_epoll/server.c, 6/edge one of its variants.
SOURCES := $(foreach s,$(DIRECTORIES),$(wildcard $s/server.c $s/variants/*.c))
label = $(call number,$(1))$(if $(findstring /variants/,$(1)),/$(basename $(notdir $(1))))
source = $(strip $(foreach s,$(SOURCES),$(if $(filter $(1),$(call label,$s)),$s)))
NO_SOURCE = $(strip $(foreach l,$(A) $(B),$(if $(call source,$l),,$l)))
ifeq ($(A)$(B),)
diff:
	@common/tests/check-distance.py --list
else
diff:
	@test -n "$(and $(A),$(B))" || { \
	    echo "usage: make diff A=5 B=6, or for a variant B=6/edge" >&2; exit 2; }
	@test -z "$(NO_SOURCE)" || { \
	    echo "no server $(NO_SOURCE): there are $(foreach s,$(SOURCES),$(call label,$s))" >&2; \
	    exit 2; }
	@$(COLOUR); diff -u $$colour $(call source,$(A)) $(call source,$(B)) || test $$? = 1
endif
# Colour on a terminal, unless this diff does not offer it or the user set NO_COLOR.
COLOUR = colour=; test -n "$$NO_COLOR" || ! diff --color=auto Makefile Makefile 2>/dev/null || \
         colour=--color=auto

grade:
	@test -n "$(SERVER)" || { echo "usage: make grade SERVER=PATH [STAGE=2] [HINT=1] [ALL=1]" \
	    "[ARGS=...]" >&2; exit 2; }
	@clients/grade.py --as-make $(addprefix --stage ,$(STAGE)) \
	    $(if $(filter-out 0,$(HINT)),--hint) $(if $(filter-out 0,$(ALL)),--all) \
	    $(if $(SEED),--seed '$(SEED)') '$(SERVER)' $(if $(ARGS),-- $(ARGS))

# LANG is in every environment, where it is the language of messages.
STARTER_LANG = $(if $(filter command,$(origin LANG)),$(LANG))
starter:
	@test -n "$(and $(STARTER_LANG),$(DIR))" || { \
	    echo "usage: make starter LANG=c DIR=PATH" >&2; exit 2; }
	@clients/begin.py starter '$(STARTER_LANG)' '$(DIR)'
exercise:
	@test -n "$(and $(ASKED),$(DIR))" || { \
	    echo "usage: make exercise STEP=6 DIR=PATH" >&2; exit 2; }
	@clients/begin.py exercise '$(ASKED)' '$(DIR)'
gradescope.zip:
	@clients/courses/gradescope/package.py build/gradescope.zip $(if $(COURSE),'$(COURSE)')

bench: known-steps setup-build
	@$(MAKE) --no-print-directory $(CHOSEN) clients
	@clients/bench/bench.py $(if $(filter-out 0,$(QUICK)),--quick) \
	    $(if $(ASKED),--steps $(STEP_LIST)) $(if $(filter-out 0,$(PEERS)),--peers) \
	    $(if $(ROUNDS),--rounds '$(ROUNDS)')
bench-check: all-steps setup-build
	@$(MAKE) --no-print-directory all
	@clients/bench/check.py
claims: all-steps setup-build
	@$(MAKE) --no-print-directory all
	@common/lessons/claims.py $(if $(filter-out 0,$(WRITE)),--write) $(ONLY)

page:
	@clients/replay/page.sh
record: setup-check
	@$(MAKE) --no-print-directory all
ifneq ($(SERVER),)
	@clients/replay/record.py --server '$(SERVER)' $(if $(ARGS),-- $(ARGS))
else
	@clients/replay/record.py $(if $(ASKED),--only $(subst $() ,$(comma),$(ASKED)))
	@clients/replay/pictures.py
endif

coverage: all-steps setup-check
	@common/tools/coverage.py
memcheck: all-steps setup-check
	@$(MAKE) --no-print-directory tests
	@common/tools/memcheck.py
fuzz:
	@common/tools/fuzz.sh $(SECONDS)
matrix:
	@common/tools/matrix.sh $(ROW)

lint:
	@common/tools/lint.sh
format:
	@common/tools/lint.sh format-fix
format-check:
	@common/tools/lint.sh format

compile_commands.json: setup-check
	@command -v bear >/dev/null || { echo "$@: bear is not installed;" \
	    "sh common/build-aux/setup.sh full installs it and all other optional tools" >&2; exit 1; }
	@bear --output $@ -- $(MAKE) --no-print-directory -B all tests

clean:
	@for part in $(DIRECTORIES) common common/lessons clients; do $(MAKE) -s -C $$part clean; done
	rm -rf build compile_commands*.json

help:
	@sed -n 's/^## \{0,1\}//p' Makefile
