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
