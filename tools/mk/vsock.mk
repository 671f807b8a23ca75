# Judges of the vsock device beyond its unit tests.

#: models       the Spin models of docs/models and their mutants
.PHONY: models vsock-qemu
models:
	@docs/models/run.sh

#: vsock-qemu   a stock guest under QEMU drives the device over vhost-user;
#:              Linux's own vsock_test in it
vsock-qemu: all
	@tests/vsock/suite.sh $(B)
suites += models vsock-qemu

#: vsock-vmm    Linux's vsock_test in guests of our own VMM, both engines
.PHONY: vsock-vmm
vsock-vmm: all
	@tests/vsock/vmm.sh $(B)/arcvmm
suites += vsock-vmm

#: vsock-streams         hashed streams and connects in guests of our own VMM
#: nested-vsock-streams  ... under KVM, in the nested host
.PHONY: vsock-streams nested-vsock-streams
vsock-streams: all
	@tests/vsock/streams.sh $(B) soft
nested-vsock-streams: all
	@tests/vsock/streams.sh $(B) kvm
suites += vsock-streams
