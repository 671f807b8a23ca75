# Benches: programs that measure, never part of the tests.

#: bench-build  the bench programs, bench/<name>.c; run them by hand
.PHONY: bench-build bench-check bench-vsock
bench_src := $(wildcard bench/*.c)
bench_bin := $(patsubst %.c,$(B)/%,$(bench_src))
$(call obj,$(bench_src)): CPPFLAGS += -Itests/unit
$(bench_bin): %: %.o $(B)/tests/unit/libunit.a $(B)/libarcvmm.a
	$(call say,LD,$@) $(CC) $(LDFLAGS) -o $@ $< $(B)/tests/unit/libunit.a \
		$(B)/libarcvmm.a $(LIBS)
bench-build: $(bench_bin)
-include $(patsubst %.c,$(B)/%.d,$(bench_src))

#: bench-vsock  the vsock device beside its floors: alone, under a guest on the
#:              software CPU, under a guest of KVM in the nested host
bench-vsock: all bench-build
	@$(B)/bench/vsock
	@bench/vsock-guest.sh $(B)/arcvmm soft
	@bench/vsock-guest.sh $(B)/arcvmm kvm

# They go on building, and the one with a guest runs; its figures mean nothing.
bench-check: all bench-build
	@bench/vsock-guest.sh $(B)/arcvmm soft 6.1 0.01 1

#: bench-cpu    CPU, memory, system calls, processes: natively, in a guest on the
#:              software CPU; then natively and under KVM in the nested host
.PHONY: bench-cpu
bench-cpu:
	@tools/deps.sh build run test
	@$(MAKE) -s -j2 all
	@bench/cpu.sh $(B)/arcvmm
	@bench/cpu.sh --nested $(B)/arcvmm
