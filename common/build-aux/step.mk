# step.mk - what the Makefiles of all steps share. A step sets these variables and includes it:
#
#   PKGS        libraries by their pkg-config names ("libuv")
#   OBJS        the server's objects beyond server.o
#   STEP_FLAGS  compiler flags of its own
#   EXTRA_VARIANTS  beyond one for each variants/*.c: other servers, as build/variants/NAME
#   ABSENT      build/variants/NAME and build/demos/NAME that cannot be built here
#   TESTS       the unit tests, if not one for each tests/test_*.c
#   SUITE       flags for clients/check-server.py ("--serial"), and after "--" for the server;
#               SUITE_NAME for the variant NAME
#
# The user may set CC, CFLAGS, CPPFLAGS, LDFLAGS, V=1, and SAN=address,undefined or SAN=thread.
# Objects that were built with other settings are built again.

include ../common/build-aux/environment.mk
ROOT := $(patsubst %/common/build-aux/,%,$(dir $(lastword $(MAKEFILE_LIST))))
COMMON := $(ROOT)/common
# 6 in step6_epoll, nothing in common
NUMBER := $(patsubst step%,%,$(firstword $(subst _, ,$(filter step%,$(lastword $(notdir $(CURDIR)))))))
# Asks for what this step needs, and nothing else. Step 0 stands for the library alone.
SETUP = NO_INSTALL=1 sh $(COMMON)/build-aux/setup.sh

# The user's environment may hold variables of the same names, for other purposes.
$(foreach v,PKGS OBJS STEP_FLAGS EXTRA_VARIANTS ABSENT TESTS SUITE VARIANT, \
    $(if $(filter environment,$(origin $v)),$(eval $v :=)))

CFLAGS ?= -O2 -g
PKG_CONFIG ?= pkg-config
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion
# The code cannot do without these, so they do not stand in CFLAGS.
NEEDED := -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_DARWIN_C_SOURCE \
          -pthread -I. -I$(COMMON) $(STEP_FLAGS) $(if $(PKGS),$(shell $(PKG_CONFIG) --cflags $(PKGS) 2>/dev/null))
LIBS := $(if $(PKGS),$(shell $(PKG_CONFIG) --libs $(PKGS) 2>/dev/null))
ifneq ($(SAN),)
NEEDED += -fsanitize=$(SAN) -fno-omit-frame-pointer $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined)
endif

# `make V=1` shows the commands, else there is one short line for each.
SAY = $(if $(filter-out 0,$(V)),,@echo "  $(1)  $(lastword $(notdir $(CURDIR)))/$@";)
COMPILE = $(CC) $(NEEDED) $(WARNINGS) $(CPPFLAGS) $(CFLAGS)
LINK = $(CC) $(NEEDED) $(CFLAGS) $(LDFLAGS)
LIBCOMMON := build/libcommon.a
OBJECTS = $(filter-out $(LIBCOMMON),$^) $(LIBCOMMON) # the archive last
LIBCOMMON_OBJS := $(patsubst $(COMMON)/%.c,build/common/%.o,$(wildcard $(COMMON)/*.c))

# common/server.c is a part of the library, not a program.
SERVER := $(if $(filter common,$(notdir $(CURDIR))),,$(wildcard server.c))
ifeq ($(strip $(TESTS)),)
SOURCE_TESTS := $(patsubst %.c,build/%,$(wildcard tests/test_*.c))
TESTS = $(SOURCE_TESTS)
endif
SOURCE_VARIANTS := $(filter-out $(ABSENT),$(patsubst %.c,build/%,$(wildcard variants/*.c)))
DEMOS := $(filter-out $(ABSENT),$(patsubst %.c,build/%,$(wildcard demos/*.c)))

.PHONY: all run trace demo bench diff tests check test clean need-check print-suite-args FORCE
.DELETE_ON_ERROR:
.SECONDARY:
all: $(if $(SERVER),server $(SOURCE_VARIANTS) $(EXTRA_VARIANTS) $(DEMOS),tests)

server: $(addprefix build/,server.o $(OBJS)) $(LIBCOMMON)
	$(call SAY,link)$(LINK) -o $@ $(OBJECTS) $(LIBS) $(LDLIBS)

ifneq ($(NUMBER),)
VARIANTS_HERE := $(notdir $(SOURCE_VARIANTS) $(EXTRA_VARIANTS))
CHOSEN := $(if $(VARIANT),build/variants/$(VARIANT),server)
ifneq ($(filter run trace,$(MAKECMDGOALS)),)
$(if $(filter-out $(VARIANTS_HERE),$(VARIANT)), \
    $(error VARIANT=$(VARIANT): step $(NUMBER) has $(or $(VARIANTS_HERE),no variants) here))
endif
run: $(CHOSEN)
	./$< $(ARGS)
trace: $(CHOSEN)
	@$(COMMON)/tools/trace.py $< $(ARGS)

# The same targets of the Makefile above, for this step
demo bench:
	@$(MAKE) --no-print-directory -C $(ROOT) $@ STEP=$(NUMBER)
diff:
	@$(MAKE) --no-print-directory -C $(ROOT) diff A=$(or $(A),$(NUMBER)) B=$(B)
endif

tests: $(TESTS) ; @:

test: check
check: all tests
	$(COMMON)/tests/check-all.py $(lastword $(notdir $(CURDIR)))

need-check:
	@$(SETUP) check $(or $(NUMBER),0)

$(TESTS): $(LIBCOMMON) | need-check
	$(call SAY,link)$(LINK) -o $@ $(OBJECTS) $(LIBS) -lcmocka $(LDLIBS)
$(SOURCE_TESTS): %: %.o

$(SOURCE_VARIANTS) $(EXTRA_VARIANTS) $(DEMOS): $(LIBCOMMON)
	$(call SAY,link)$(LINK) -o $@ $(OBJECTS) $(LIBS) $(LDLIBS)
$(SOURCE_VARIANTS) $(DEMOS): %: %.o

# Every server once more, as a test in which its calls fail: the linker puts tests/faults.c
# between the server and the functions that faults.c wraps.
FAULTS := $(if $(SERVER),build/tests/faults_server) \
    $(patsubst build/variants/%,build/tests/faults_%,$(SOURCE_VARIANTS) $(EXTRA_VARIANTS))
tests: $(FAULTS)
ifeq ($(shell uname -s),Darwin)
$(FAULTS):
	@mkdir -p $(@D)
	@printf '#!/bin/sh\necho 1..1; echo "ok 1 # SKIP this linker has no --wrap"\n' > $@
	@chmod +x $@
else
WRAPS = $$(nm build/faults.o | sed -n 's/.* T __wrap_/-Wl,--wrap=/p')
$(FAULTS): build/faults.o $(LIBCOMMON) | need-check
	$(call SAY,link)$(LINK) -o $@ $(OBJECTS) $(WRAPS) $(LIBS) -lcmocka $(LDLIBS)
build/tests/faults_server: $(addprefix build/,server.o $(OBJS))
$(SOURCE_VARIANTS:build/variants/%=build/tests/faults_%): build/tests/faults_%: build/variants/%.o
endif
build/faults.o: $(COMMON)/tests/faults.c build/flags
	$(call SAY,cc  )$(COMPILE) -fno-lto -MMD -MP -c -o $@ $<

$(LIBCOMMON): $(LIBCOMMON_OBJS)
	@rm -f $@
	@$(AR) rc $@ $^

build/common/%.o: $(COMMON)/%.c build/flags
	$(call SAY,cc  )$(COMPILE) -MMD -MP -c -o $@ $<

build/%.o: %.c build/flags
	@mkdir -p $(@D)
	$(call SAY,cc  )$(COMPILE) -MMD -MP -c -o $@ $<

# Holds the flags of the last build. Every object depends on it, so all are built again when the
# flags change. That is also the moment to report what is missing on this machine.
FLAGS := $(COMPILE) | $(LINK) $(LIBS) $(LDLIBS) | $(OBJS)
build/flags: FORCE
	@mkdir -p build && mkdir -p build/common build/tests build/variants build/demos
	@echo '$(FLAGS)' | cmp -s - $@ || \
	    { $(SETUP) build $(or $(NUMBER),0) && echo '$(FLAGS)' > $@; }

print-suite-args:
	@echo $(if $(VARIANT),$(SUITE_$(VARIANT)),$(SUITE))

clean:
	rm -rf build server

# The headers of each object. A file that is no list of prerequisites, as a full disk may leave
# it, would stop make. It is left out, and its object, which writes it, is built again.
DEPENDENCIES := $(wildcard build/*.d build/*/*.d)
BROKEN := $(if $(DEPENDENCIES),$(shell grep -alvE '^( .*|[^[:space:]:][^:]*:( .*)?)?$$' $(DEPENDENCIES)))
$(BROKEN:.d=.o): FORCE
-include $(filter-out $(BROKEN),$(DEPENDENCIES))
