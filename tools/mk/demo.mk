#: demo         install what is needed, build, boot a stock Debian kernel
.PHONY: demo
demo:
	@tools/deps.sh build run
	@$(MAKE) -s -j2 all
	@tools/demo.sh $(B)/arcvmm
