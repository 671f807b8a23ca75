# Tests and guards.

#: unit         the unit tests (cmocka), one program per file
.PHONY: unit
unit_bin := $(patsubst %.c,$(B)/%,$(filter tests/unit/%/test_%.c tests/unit/test_%.c,$(unit_src)))
unit_lib := $(call obj,$(filter-out $(patsubst $(B)/%,%.c,$(unit_bin)),$(unit_src)))
$(unit_bin): %: %.o $(unit_lib) $(B)/libarcvmm.a
	$(call say,LD,$@) $(CC) $(LDFLAGS) -o $@ $< $(unit_lib) \
		$(B)/libarcvmm.a $(LIBS) -lcmocka
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
