# Builds the program `server`. COMMON is the library of the course, or a copy of it.
COMMON ?= @COMMON@
CFLAGS ?= -O2 -g
NEEDED = -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_DARWIN_C_SOURCE -pthread \
         -I. -I$(COMMON) -Wall -Wextra -Wpedantic -Wshadow -Wconversion@FLAGS@
LIBRARY = $(patsubst $(COMMON)/%.c,build/common/%.o,$(wildcard $(COMMON)/*.c))

server: @OBJECTS@ build/libcommon.a
	$(CC) $(NEEDED) $(CFLAGS) -o $@ $^@LIBRARIES@
build/libcommon.a: $(LIBRARY)
	$(AR) rc $@ $^
build/common/%.o: $(COMMON)/%.c
	@mkdir -p $(@D)
	$(CC) $(NEEDED) $(CFLAGS) -c -o $@ $<
build/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(NEEDED) $(CFLAGS) -c -o $@ $<
clean:
	rm -rf build server
