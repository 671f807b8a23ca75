# Benches: programs that measure, never part of the tests.

#: bench-build  the bench programs, bench/<name>.c; run them by hand
.PHONY: bench-build
bench_src := $(wildcard bench/*.c)
bench_bin := $(patsubst %.c,$(B)/%,$(bench_src))
$(call obj,$(bench_src)): CPPFLAGS += -Itests/unit
$(bench_bin): %: %.o $(B)/tests/unit/libunit.a $(B)/libarcvmm.a
	$(call say,LD,$@) $(CC) $(LDFLAGS) -o $@ $< $(B)/tests/unit/libunit.a \
		$(B)/libarcvmm.a $(LIBS)
bench-build: $(bench_bin)
-include $(patsubst %.c,$(B)/%.d,$(bench_src))
