# Builds the program `server`. COMMON is the library of the course, or a copy of it.
COMMON ?= @COMMON@
CFLAGS ?= -O2 -g
NEEDED = -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_DARWIN_C_SOURCE -pthread \
         -I. -I'$(COMMON)' -Wall -Wextra -Wpedantic -Wshadow -Wconversion@FLAGS@

server: @SOURCES@ $(wildcard *.h)
	$(CC) $(NEEDED) $(CFLAGS) -o $@ @SOURCES@ '$(COMMON)'/*.c@LIBRARIES@
clean:
	rm -f server
