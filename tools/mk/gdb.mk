# GDB itself against a stock kernel under the software CPU.

#: gdb-check    breakpoints, watchpoint, steps in a booting kernel (tests/gdb)
.PHONY: gdb-check
gdb-check: all
	@tests/gdb/run.sh $(B)/arcvmm soft 6.1

suites += gdb-check
