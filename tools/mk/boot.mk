# Boots of stock Debian kernels with the command line tool.

#: boot         natively, on the software CPU
.PHONY: boot nested-boot
boot: all
	@tools/test-all.sh "boot-one KERNEL=6.1 CPUS=1" "boot-one KERNEL=6.12 CPUS=2"
.PHONY: boot-one nested-boot-one
boot-one: all
	@tests/boot/native.sh $(B)/arcvmm soft $(KERNEL) $(CPUS)

#: nested-boot  under KVM, in the L1 host
nested-boot: all
	@tools/test-all.sh "nested-boot-one KERNEL=6.1 CPUS=1" \
		"nested-boot-one KERNEL=6.12 CPUS=2"
nested-boot-one: all
	@tests/boot/nested.sh $(B)/arcvmm $(KERNEL) $(CPUS)
