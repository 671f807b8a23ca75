# Compile, archive, link, install.

.PHONY: lib cli guest install
lib:   $(B)/libarcvmm.a $(B)/libarcvmm.so
cli:   $(if $(cli_src),$(B)/arcvmm)
guest: $(B)/guest/arcvmm-guest

$(call obj,$(cli_src)): CPPFLAGS += -I.
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# The device registry is made from the file names in src/virtio/dev: adding a
# device is adding its file. The recipe rewrites only what changed.
dev_names := $(basename $(notdir $(wildcard src/virtio/dev/*.c)))
$(B)/gen/virtio_devices.h: $(wildcard src/virtio/dev/*.c)
	@mkdir -p $(@D)
	$(call say,GEN,$@) for n in $(dev_names); do \
		grep -q "^const struct virtio_dev_type virtio_dev_$$n " \
			src/virtio/dev/$$n.c && echo "VIRTIO_DEV($$n)"; \
	done > $@; true
$(call obj,$(lib_src)): | $(B)/gen/virtio_devices.h

# The guest program: static, small, linked into the library as bytes. It is
# built by musl-gcc for size, never with a sanitizer.
GUEST_CC ?= musl-gcc
# What host and guest both speak is the same source on both sides.
guest_shared := frame.c copy_send.c copy_recv.c
guest_own := $(patsubst %.c,$(B)/%.o,$(guest_src))
guest_both := $(patsubst %.c,$(B)/guest/shared/%.o,$(guest_shared))
guest_obj := $(guest_own) $(guest_both)
$(guest_own): $(B)/guest/%.o: guest/%.c
$(guest_both): $(B)/guest/shared/%.o: src/agent/%.c
$(guest_obj):
	@mkdir -p $(@D)
	$(call say,GUESTCC,$<) $(GUEST_CC) -std=gnu11 -Os $(WARN) -D_GNU_SOURCE \
		-ffunction-sections -fdata-sections -Iguest -Isrc \
		-DARCVMM_VERSION='"$(VERSION)"' $(guest_cppflags) \
		-MMD -MP -c -o $@ $<
$(B)/guest/arcvmm-guest: $(guest_obj)
	@mkdir -p $(@D)
	$(call say,GUESTLD,$@) $(GUEST_CC) -static -s -Wl,--gc-sections -o $@ $^
$(B)/gen/guest_blob.o: $(B)/guest/arcvmm-guest
	@mkdir -p $(@D)
	$(call say,EMBED,$@) cd $(<D) && ld -r -b binary -z noexecstack \
		-o $(abspath $@) $(<F)

lib_obj := $(call obj,$(lib_src)) $(B)/gen/guest_blob.o
$(B)/libarcvmm.a: $(lib_obj)
	$(call say,AR,$@) rm -f $@; ar rcs $@ $^
$(B)/libarcvmm.so: $(lib_obj)
	$(call say,LD,$@) $(CC) -shared -Wl,-soname,libarcvmm.so.0 $(LDFLAGS) \
		-o $@ $^ $(LIBS)

# The CLI is static: it starts a millisecond sooner, and one file is all that a
# host without our libraries needs. Sanitizers cannot be linked so.
CLI_STATIC ?= $(if $(SAN),,-static-pie)
$(B)/arcvmm: $(call obj,$(cli_src)) $(B)/libarcvmm.a
	$(call say,LD,$@) $(CC) $(LDFLAGS) $(CLI_STATIC) -o $@ $^ $(LIBS)

-include $(patsubst %.o,%.d,$(call obj,$(lib_src) $(cli_src) $(unit_src)) $(guest_obj))

$(B)/arcvmm.1: docs/man/arcvmm.1.in tools/make-man.sh $(B)/arcvmm
	$(call say,MAN,$@) tools/make-man.sh $(B)/arcvmm $< $(VERSION) > $@

#: man          the man page, from what the program says of itself
.PHONY: man
man: $(B)/arcvmm.1

PREFIX  ?= /usr/local
DESTDIR ?=
#: install      into PREFIX: library, header, pkg-config, CLI, man page
install: all man
	install -d $(DESTDIR)$(PREFIX)/{bin,lib/pkgconfig,include/arcvmm} \
		$(DESTDIR)$(PREFIX)/share/{man/man1,bash-completion/completions}
	install -m755 $(B)/arcvmm $(DESTDIR)$(PREFIX)/bin/
	install -m644 $(B)/libarcvmm.a $(DESTDIR)$(PREFIX)/lib/
	install -m755 $(B)/libarcvmm.so $(DESTDIR)$(PREFIX)/lib/libarcvmm.so.$(VERSION)
	ln -sf libarcvmm.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libarcvmm.so.0
	ln -sf libarcvmm.so.0 $(DESTDIR)$(PREFIX)/lib/libarcvmm.so
	install -m644 include/arcvmm/arcvmm.h $(DESTDIR)$(PREFIX)/include/arcvmm/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' \
		-e 's|@LIBS@|$(LIBS)|' tools/arcvmm.pc.in \
		> $(DESTDIR)$(PREFIX)/lib/pkgconfig/arcvmm.pc
	install -m644 $(B)/arcvmm.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	$(B)/arcvmm completion bash \
		> $(DESTDIR)$(PREFIX)/share/bash-completion/completions/arcvmm
install: SHELL := /bin/bash

#: clean        remove build/ (cached kernels and test images stay)
.PHONY: clean
clean:
	rm -rf build
