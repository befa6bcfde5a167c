# environment.mk - what every Makefile of the tree includes first.

# BSD make is the only one that defines .MAKE.LEVEL. It stops in bsd.mk with a message.
-include ${.MAKE.LEVEL:Dbsd.mk}

# Settings of the user that would change what our scripts and tools do
unexport CDPATH GREP_OPTIONS POSIXLY_CORRECT
unexport PYTHONINSPECT PYTHONOPTIMIZE PYTHONPATH PYTHONSAFEPATH PYTHONWARNINGS

# The usual values, which `make -R` and MAKEFLAGS=R take away.
CC ?= cc
AR ?= ar
.SHELLFLAGS = -c
