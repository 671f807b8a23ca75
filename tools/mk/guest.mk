# Programs that judge a guest's CPU from inside (tests/guest).

#: guest-programs  locked instructions, memory order, code that changes, a
#:                 32-bit program, in guests; GUEST_ROUNDS (8) for how long
.PHONY: guest-programs guest-programs-one
GUEST_ROUNDS ?= 8
guest_test_dir := $(B)/tests/guest
guest_test_flags := -std=gnu11 -O2 $(WARN) -D_GNU_SOURCE \
                    -pthread -static
$(guest_test_dir)/atomics $(guest_test_dir)/newcode: \
		$(guest_test_dir)/%: tests/guest/%.c tests/guest/check.h
	@mkdir -p $(@D)
	$(call say,GUESTCC,$@) musl-gcc $(guest_test_flags) -o $@ $<
# 32-bit, by glibc's static library; the kernel's headers are those of 64 bits.
$(guest_test_dir)/ia32: tests/guest/ia32.c tests/guest/check.h
	@mkdir -p $(@D)
	$(call say,GUESTCC,$@) gcc -m32 -msse2 -fno-pie -no-pie $(guest_test_flags) \
		-idirafter /usr/include/x86_64-linux-gnu -o $@ $< -lm
guest_tests := $(addprefix $(guest_test_dir)/,atomics newcode ia32)
guest-programs:
	@tools/deps.sh build run test
	@tools/test-all.sh "guest-programs-one KERNEL=6.1 CPUS=2" \
		"guest-programs-one KERNEL=6.12 CPUS=4"
guest-programs-one: all $(guest_tests)
	@tests/boot/programs.sh $(B)/arcvmm soft $(KERNEL) $(CPUS) \
		$(guest_test_dir) $(GUEST_ROUNDS)
suites += guest-programs

# With a Debian made by debootstrap (as root, once: some minutes); not in CI.
#: guest-systemd   Debian 12 from a disk: to the login prompt, in, power-off
#: guest-debian    stress-ng, Python and OpenSSL in a guest check themselves
.PHONY: guest-systemd guest-debian
guest-systemd:
	@tools/deps.sh build run test
	@$(MAKE) -s -j2 all
	@tests/boot/systemd.sh $(B)/arcvmm 6.1
guest-debian:
	@tools/deps.sh build run test
	@$(MAKE) -s -j2 all
	@tests/boot/debian.sh $(B)/arcvmm 6.1
