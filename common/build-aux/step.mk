# step.mk - what the Makefiles of all steps share. A step sets what it needs and includes this:
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
# Whatever is set, objects built with other settings are built again.

ROOT := $(patsubst %/common/build-aux/,%,$(dir $(lastword $(MAKEFILE_LIST))))
COMMON := $(ROOT)/common

CFLAGS ?= -O2 -g
PKG_CONFIG ?= pkg-config
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion
# The code cannot do without these, so they do not stand in CFLAGS.
NEEDED := -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_DARWIN_C_SOURCE \
          -pthread -I. -I$(COMMON) $(STEP_FLAGS) $(if $(PKGS),$(shell $(PKG_CONFIG) --cflags $(PKGS)))
LIBS := $(if $(PKGS),$(shell $(PKG_CONFIG) --libs $(PKGS)))
ifneq ($(SAN),)
NEEDED += -fsanitize=$(SAN) -fno-omit-frame-pointer $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined)
endif

# `make V=1` shows the commands, else there is one short line for each.
SAY = $(if $(V),,@echo "  $(1)  $(lastword $(notdir $(CURDIR)))/$@";)
COMPILE = $(CC) $(NEEDED) $(WARNINGS) $(CPPFLAGS) $(CFLAGS)
LINK = $(CC) $(NEEDED) $(CFLAGS) $(LDFLAGS)
LIBCOMMON := build/libcommon.a
OBJECTS = $(filter-out $(LIBCOMMON),$^) $(LIBCOMMON) # the archive last
LIBCOMMON_OBJS := $(patsubst $(COMMON)/%.c,build/common/%.o,$(wildcard $(COMMON)/*.c))

# common/server.c is a part of the library, not a program.
SERVER := $(if $(filter common,$(notdir $(CURDIR))),,$(wildcard server.c))
SOURCE_TESTS := $(if $(TESTS),,$(patsubst %.c,build/%,$(wildcard tests/test_*.c)))
TESTS ?= $(SOURCE_TESTS)
SOURCE_VARIANTS := $(filter-out $(ABSENT),$(patsubst %.c,build/%,$(wildcard variants/*.c)))
DEMOS := $(filter-out $(ABSENT),$(patsubst %.c,build/%,$(wildcard demos/*.c)))

.PHONY: all run tests check clean print-suite-args FORCE
.DELETE_ON_ERROR:
.SECONDARY:
all: $(if $(SERVER),server $(SOURCE_VARIANTS) $(EXTRA_VARIANTS) $(DEMOS),tests)

server: $(addprefix build/,server.o $(OBJS)) $(LIBCOMMON)
	$(call SAY,link)$(LINK) -o $@ $(OBJECTS) $(LIBS) $(LDLIBS)

run: server
	./server $(ARGS)

tests: $(TESTS) ; @:

check: all tests
	$(ROOT)/common/tests/check-all.py $(lastword $(notdir $(CURDIR)))

$(TESTS): $(LIBCOMMON)
	$(call SAY,link)$(LINK) -o $@ $(OBJECTS) $(LIBS) -lcmocka $(LDLIBS)
$(SOURCE_TESTS): %: %.o

$(SOURCE_VARIANTS) $(EXTRA_VARIANTS) $(DEMOS): $(LIBCOMMON)
	$(call SAY,link)$(LINK) -o $@ $(OBJECTS) $(LIBS) $(LDLIBS)
$(SOURCE_VARIANTS) $(DEMOS): %: %.o

# Every server once more, as a test in which its calls fail: the linker puts tests/faults.c
# between it and what that wraps.
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
$(FAULTS): build/faults.o $(LIBCOMMON)
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

# Holds the flags of the last build; changes, and so outdates every object, when they do.
FLAGS := $(COMPILE) | $(LINK) $(LIBS) $(LDLIBS) | $(OBJS)
build/flags: FORCE
	@mkdir -p build/common build/tests build/variants build/demos
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' > $@

print-suite-args:
	@echo $(if $(VARIANT),$(SUITE_$(VARIANT)),$(SUITE))

clean:
	rm -rf build server

-include $(wildcard build/*.d build/*/*.d)
