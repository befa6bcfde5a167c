# Eight echo servers, one protocol, one client.
#
## make                build everything; installs nothing
## make demo           watch all steps serve the same five clients
##                       N=5 clients, SCALE=0.2 of the pauses (1: for a class), STEPS=1,2,6: only
##                       these, VARIANTS=1: their variants too
## make check          test everything; STEP=6 or STEPS=1,2: only these steps
## make check-full     the same at length, and what is below, but for bench: well over an hour;
##                       STAGE="lint memcheck": only these, each the name of a target
## make bench          measure everything, in five minutes; QUICK=1 under one, PEERS=1: Redis too,
##                       STEPS=5,6: only these
## make bench-check    assert the course's claims about cost, as ratios
## make diff A=5 B=6   what changes from one step's server to another's
## make lint           every analyser at hand; make format, make format-check: the layout
## make dockerfile-check   try common/build-aux/Dockerfile without Docker, on a Debian made for it (root)
## make coverage       which lines the tests reach; make memcheck: valgrind
## make fuzz           libFuzzer, SECONDS=30 for each target
## make matrix         other compilers and flags, sanitizers, musl; ROW="musl threads": only these
## make clean          remove whatever was built
##
## Variables: CC, CFLAGS (-O2 -g), CPPFLAGS, LDFLAGS; SAN=address,undefined or SAN=thread: build
## with sanitizers; V=1: show the commands. demo and check install what is missing, unless
## NO_INSTALL=1. STEP and STEPS mean the same. In a step's directory: make, make run ARGS=...,
## make check, make clean; in step8_ae also BACKEND=epoll, kqueue, poll or select.

DIRECTORIES := $(sort $(wildcard step[0-9]*_*))
NUMBERS := $(foreach s,$(DIRECTORIES),$(patsubst step%,%,$(firstword $(subst _, ,$s))))
comma := ,
ASKED := $(strip $(subst $(comma), ,$(or $(STEP),$(STEPS))))
WANTED := $(or $(ASKED),$(NUMBERS))
STEP_LIST := $(subst $() ,$(comma),$(WANTED))
CHOSEN := $(foreach n,$(WANTED),$(filter step$(n)_%,$(DIRECTORIES)))
STAGES = $(shell sed -n "s/^stages='\(.*\)'/\1/p" common/tools/check-full.sh)

.PHONY: all $(DIRECTORIES) clients tests demo check check-full bench bench-check coverage memcheck \
        dockerfile-check fuzz matrix lint format format-check diff clean help \
        known-steps all-steps known-stages need-build setup-build setup-check

all: $(DIRECTORIES) clients

$(DIRECTORIES) clients: need-build
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

# Builds nothing and installs nothing where something is missing: says what, and stops.
need-build:
	@NO_INSTALL=1 sh common/build-aux/setup.sh build
setup-build:
	@sh common/build-aux/setup.sh build
setup-check:
	@sh common/build-aux/setup.sh check

# The installing comes first, and then a make that sees what was installed.
demo: known-steps setup-build
	@$(MAKE) --no-print-directory $(CHOSEN)
	@clients/demo.py --clients $(or $(N),5) --scale $(or $(SCALE),0.2) \
	    --steps $(STEP_LIST) \
	    $(if $(VARIANTS),--variants)

tests: known-steps $(CHOSEN) clients
	@for part in common clients $(CHOSEN); do \
	    $(MAKE) --no-print-directory -C $$part tests || exit 1; done

check: known-steps setup-check
	@$(MAKE) --no-print-directory tests
	@common/tests/check-all.py $(if $(ASKED),--steps $(STEP_LIST))

dockerfile-check:
	@common/tools/check-full.sh dockerfile-check
check-full: all-steps known-stages setup-check
	@sh common/build-aux/setup.sh full
	@$(MAKE) --no-print-directory tests
	@common/tools/check-full.sh $(STAGE)

DIFF_A = $(if $(A),$(wildcard step$(A)_*/server.c))
DIFF_B = $(if $(B),$(wildcard step$(B)_*/server.c))
diff:
	@test -n "$(and $(DIFF_A),$(DIFF_B))" || { echo "usage: make diff A=5 B=6" >&2; exit 2; }
	@diff -u $(DIFF_A) $(DIFF_B) || test $$? = 1

bench: known-steps setup-build
	@$(MAKE) --no-print-directory all
	@clients/bench/bench.py $(if $(filter-out 0,$(QUICK)),--quick) \
	    $(if $(ASKED),--steps $(STEP_LIST)) $(if $(filter-out 0,$(PEERS)),--peers)
bench-check: all-steps setup-build
	@$(MAKE) --no-print-directory all
	@clients/bench/check.py

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

clean:
	@for part in $(DIRECTORIES) common clients; do $(MAKE) -s -C $$part clean; done
	rm -rf build

help:
	@sed -n 's/^## \{0,1\}//p' Makefile
