# Tests that need a KVM that runs kernels: inside an L1 host under emulated SVM.

#: nested       engine tests and boots of stock kernels in the L1 host
.PHONY: nested nested-unit nested-icount
nested: nested-unit nested-boot
#: nested-icount  deterministic figures of a boot, against QEMU's microvm
nested-icount: $(B)/arcvmm
	@tests/nested/icount.sh -q $(B)/arcvmm
nested_unit_bin = $(filter $(B)/tests/unit/hv/test_kvm_%,$(unit_bin))
nested-unit: $(nested_unit_bin)
	@tests/nested/unit.sh $(nested_unit_bin)

#: unit-soft    the engine tests on the software CPU (they take KVM by default)
.PHONY: unit-soft
unit-soft: $(nested_unit_bin)
	@ARCVMM_TEST_ENGINE=soft tools/run-tests.sh $(nested_unit_bin)
