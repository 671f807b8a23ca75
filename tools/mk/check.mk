# Tests and guards.

#: unit         the unit tests (cmocka), one program per file
.PHONY: unit
unit_test_src := $(foreach s,$(unit_src),$(if $(filter test_%,$(notdir $(s))),$(s)))
unit_bin := $(patsubst %.c,$(B)/%,$(unit_test_src))
# Files not named test_* are shared helpers: each test links what it uses.
unit_lib := $(B)/tests/unit/libunit.a
$(unit_lib): $(call obj,$(filter-out $(unit_test_src),$(unit_src)))
	@mkdir -p $(@D)
	$(call say,AR,$@) rm -f $@; ar rcs $@ $^
$(unit_bin): %: %.o $(unit_lib) $(B)/libarcvmm.a
	$(call say,LD,$@) $(CC) $(LDFLAGS) -o $@ $< $(unit_lib) \
		$(B)/libarcvmm.a $(LIBS) -lcmocka $(unit_libs)
$(call obj,$(unit_src)): CPPFLAGS += -Itests/unit
.SECONDARY: $(call obj,$(unit_src))
# Tests named test_oom replace the allocator.
$(filter %/test_oom,$(unit_bin)): LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
$(filter %/test_decode_zydis,$(unit_bin)): unit_libs := -lZydis
unit: $(unit_bin)
	@tools/run-tests.sh $(unit_bin)

#: layers       the include rules of docs/architecture.md
.PHONY: layers
layers:
	@tools/check-layers.sh

#: headers      each header compiles alone
.PHONY: headers
headers: $(B)/gen/virtio_devices.h
	@tools/check-headers.sh $(CC) $(CPPFLAGS) $(CFLAGS)

#: format       rewrite the tree with clang-format; format-check only looks
.PHONY: format format-check
format_src = $(shell git ls-files '*.c' '*.h')
format:
	clang-format -i $(format_src)
format-check:
	@clang-format --dry-run -Werror $(format_src)

#: unit-threads the unit tests of what runs on several threads (for SAN=thread)
.PHONY: unit-threads
thread_tests := $(filter %/test_loop %/virtio/test_core %/virtio/test_blk \
	%/test_irq_threads %/vsock/test_threads %/gdb/test_gdb %/vm/test_vm \
	%/hv/test_soft_smp %/hv/test_kvm_irq %/hv/test_kvm_kick \
	%/hv/test_kvm_vms,$(unit_bin))
unit-threads: $(thread_tests)
	@ARCVMM_TEST_ENGINE=soft tools/run-tests.sh $(thread_tests)

#: test         all tests
.PHONY: test test-suites
test:
	@tools/deps.sh build run test
	@$(MAKE) -s -j2 all
	@tools/test-all.sh $(suites)
test-suites:
	@tools/test-all.sh $(suites)
# In the order of their price; tools/mk/vsock.mk adds its own.
suites := unit unit-soft cli-test install-check boot bench-check \
	oracle-check nested-unit nested-boot

#: cli-test     the command line: options, messages, exit statuses
.PHONY: cli-test
cli-test: all
	@tests/cli/run.sh $(B)/arcvmm

#: install-check  what is installed: library static and shared, C and C++
.PHONY: install-check
install-check: all
	@tests/install/run.sh CC=$(CC)
