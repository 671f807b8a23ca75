# arcvmm - GNU make
#
#   make            library, CLI and guest program    (build/<variant>/)
#   make demo       install, build, boot a stock Debian kernel
#   make test       all tests
#   make help       the rest
#
# Variables: CC=gcc|clang  SAN=address,undefined|thread  V=1  PREFIX=/usr/local
# Sources are found by folder: a new .c file is built without editing this.

.DEFAULT_GOAL := all
MAKEFLAGS     += --no-builtin-rules
VERSION       := $(shell cat VERSION)
CC            := $(if $(filter default,$(origin CC)),gcc,$(CC))
SAN           ?=
comma         := ,
variant       := $(notdir $(firstword $(CC)))$(if $(SAN),-$(subst $(comma),+,$(SAN)))
B             := build/$(variant)
Q             := $(if $(V),,@)
say            = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)';)

OPT      ?= -O2
WARN     := -Wall -Wextra -Wstrict-prototypes -Wmissing-prototypes \
            -Wpointer-arith -Wvla -Wshadow -Wundef -Werror
CFLAGS   := -std=gnu11 $(OPT) -g $(WARN) -fvisibility=hidden -fPIC \
            -fno-strict-aliasing -fstack-protector-strong \
            -ffunction-sections -fdata-sections -pthread $(CFLAGS_EXTRA)
CPPFLAGS := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 \
            -DARCVMM_VERSION='"$(VERSION)"' -Iinclude -Isrc -I$(B)/gen
LDFLAGS  := -pthread -Wl,--gc-sections -Wl,-z,relro,-z,now $(LDFLAGS_EXTRA)
ifneq ($(SAN),)
CFLAGS   += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
LDFLAGS  += -fsanitize=$(SAN)
# gcc's TSan does not model fences; they order us against guests, not threads.
CFLAGS   += $(if $(findstring thread,$(SAN)),$(if $(findstring gcc,$(CC)),-Wno-tsan))
endif

# The third-party libraries of the library; tests add cmocka.
pkgs := liburing libseccomp libzstd liblz4 zlib liblzma jansson
CPPFLAGS += $(shell pkg-config --cflags $(pkgs) 2>/dev/null)
LIBS     := $(shell pkg-config --libs $(pkgs) 2>/dev/null) -lbz2 -llzo2 -lm

find = $(sort $(foreach d,$(1),$(wildcard $(d)/*.c $(d)/*/*.c $(d)/*/*/*.c $(d)/*/*/*/*.c)))
lib_src   := $(call find,src)
cli_src   := $(call find,cli)
guest_src := $(call find,guest)
unit_src  := $(call find,tests/unit)
obj        = $(patsubst %.c,$(B)/%.o,$(1))

include $(sort $(wildcard tools/mk/*.mk))

.PHONY: all help
all: lib cli guest

help:
	@sed -n 's/^# \{0,1\}//; /^arcvmm/,/^Sources/p' Makefile
	@echo; grep -hE '^#: ' Makefile tools/mk/*.mk | sed 's/^#: /  make /'
