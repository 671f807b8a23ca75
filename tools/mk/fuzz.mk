# Fuzzers: every parser of guest or file data, over its real source.

#: fuzz         each fuzzer for FUZZ_SECONDS (10); FUZZ=name for one of them
.PHONY: fuzz fuzz-build fuzz-run
FUZZ_SECONDS ?= 10
FUZZ         ?= $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SAN     := fuzzer-no-link,address,undefined

fuzz:
	@$(MAKE) -s --no-print-directory CC=clang SAN=$(FUZZ_SAN) fuzz-run

fuzz_bin := $(patsubst %,$(B)/tests/fuzz/fuzz_%,$(FUZZ))
fuzz_lib := $(B)/tests/fuzz/libfuzz.a
fuzz_lib_src := $(filter-out tests/fuzz/fuzz_%.c,$(wildcard tests/fuzz/*.c))
$(fuzz_lib): $(call obj,$(fuzz_lib_src)) $(call obj,$(filter-out $(unit_test_src),$(unit_src)))
	@mkdir -p $(@D)
	$(call say,AR,$@) rm -f $@; ar rcs $@ $^
$(B)/tests/fuzz/%.o: CPPFLAGS += -Itests/unit -Itests/fuzz -I.
# A library may wrap malloc in unit tests; fuzzers use the real one.
$(B)/tests/fuzz/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(fuzz_lib) $(B)/libarcvmm.a
	$(call say,LD,$@) $(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< \
		$(fuzz_lib) $(B)/libarcvmm.a $(LIBS) -lcmocka
fuzz-build: $(fuzz_bin)
fuzz-run: $(fuzz_bin)
	@tools/run-fuzzers.sh $(FUZZ_SECONDS) $(fuzz_bin)
-include $(patsubst %,$(B)/tests/fuzz/fuzz_%.d,$(FUZZ))
