# make            the program and the libraries: build/gdn, build/libgdn.a, build/libgdn.so
# make test       everything a CPU-only machine can run (./do test installs what it needs first)
# make check      every kernel variant against its reference; make bench-kernels times them
# make unit san tsan fuzz           the parts of make test
# make install PREFIX=/usr/local DESTDIR=
#
# BUILD picks the build folder, SAN adds sanitizers: make BUILD=build/asan SAN=-fsanitize=address,undefined

BUILD   ?= build
CFLAGS  ?= -O3 -g
PREFIX  ?= /usr/local
WERROR  ?=
ARCH    := $(shell uname -m)
PKGS    := jansson libpcre2-8 libutf8proc libzstd libxxhash
VERSION := 0.1.0
SONAME  := libgdn.so.$(firstword $(subst ., ,$(VERSION)))

WARN := -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wvla \
        -Wstrict-prototypes -Wmissing-prototypes $(WERROR)
CPPFLAGS += -D_GNU_SOURCE -DGDN_VERSION='"$(VERSION)"' -Iinclude $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDLIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -pthread

# A floating-point expression means what it says: no contraction outside the files that ask for fma().
FP := -ffp-contract=off -fno-math-errno -fno-trapping-math

LIB_SRC := $(sort $(wildcard src/base/*.c src/format/*.c src/text/*.c src/kern/*.c src/kern/*/*.c \
             src/backend/*.c src/model/*.c src/engine/*.c src/tools/*.c))
ifneq ($(ARCH),x86_64)
LIB_SRC := $(filter-out %_avx2.c %_avx512.c %_avx512bf16.c %_amx.c,$(LIB_SRC))
endif
CLI_SRC := $(sort $(wildcard src/cli/*.c))
CL_SRC  := $(sort $(wildcard src/kern/*/*.cl))
UNIT    := $(sort $(wildcard tests/unit/test_*.c))
CHECK   := $(sort $(wildcard tests/check/*.c))
ifneq ($(ARCH),x86_64)
CHECK   := $(filter-out %_avx2.c,$(CHECK))
endif
FUZZ    := $(sort $(wildcard tests/fuzz/fuzz_*.c))

LIB_OBJ   := $(LIB_SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/xpu_source.o
CLI_OBJ   := $(CLI_SRC:%.c=$(BUILD)/obj/%.o)
CHECK_OBJ := $(CHECK:%.c=$(BUILD)/obj/%.o)
UNIT_BIN  := $(UNIT:tests/unit/%.c=$(BUILD)/unit/%)
HELP_OBJ  := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out $(UNIT),$(wildcard tests/unit/*.c)))

.DEFAULT_GOAL := all
.PHONY: all
all: $(BUILD)/gdn $(BUILD)/libgdn.so.$(VERSION)

# The suffix of a kernel file decides its flags; no other file sees one.  KERN_CFLAGS: more of them.
$(BUILD)/obj/%_avx2.o:       ISA := -mavx2 -mfma -mf16c $(KERN_CFLAGS)
$(BUILD)/obj/%_avx512.o:     ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512 $(KERN_CFLAGS)
$(BUILD)/obj/%_avx512bf16.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma -mf16c -mprefer-vector-width=512 $(KERN_CFLAGS)
$(BUILD)/obj/%_amx.o:        ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mamx-tile -mamx-bf16 -mfma -mf16c -mprefer-vector-width=512 $(KERN_CFLAGS)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(WARN) $(CPPFLAGS) $(CFLAGS) $(FP) $(SAN) $(ISA) -fPIC -fvisibility=hidden -pthread -MMD -MP -c -o $@ $<

# OpenCL kernels go into the program as text, each file an array that ends in a NUL: found by name
# without _xpu (src/backend/xpu.h).
$(BUILD)/obj/xpu_source.c: $(CL_SRC) Makefile
	@mkdir -p $(@D)
	@{ echo '#include "xpu_source.h"'; \
	  for f in $(CL_SRC); do n=$$(basename $$f .cl); \
	    echo "static const unsigned char $$n[] = {"; \
	    od -An -v -tx1 $$f | sed 's/ \(..\)/0x\1,/g'; echo '0};'; done; \
	  echo 'const xpu_source xpu_sources[] = {'; \
	  for f in $(CL_SRC); do n=$$(basename $$f .cl); echo "{\"$${n%_xpu}\", $$n},"; done; \
	  echo '{0, 0}};'; } > $@.new && mv $@.new $@
$(BUILD)/obj/xpu_source.o: $(BUILD)/obj/xpu_source.c
	$(CC) $(WARN) $(CPPFLAGS) $(CFLAGS) $(SAN) -Isrc/backend -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

$(BUILD)/libgdn.a: $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $(LIB_OBJ)

# From the same objects.  Every name must be resolved, except a sanitizer's, which the program has.
$(BUILD)/libgdn.so.$(VERSION): $(LIB_OBJ) src/gdn.map
	$(CC) $(CFLAGS) $(SAN) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=src/gdn.map \
	  $(if $(SAN),,-Wl,-z,defs) -o $@ $(LIB_OBJ) $(LDLIBS)
	ln -sf $(@F) $(BUILD)/$(SONAME)
	ln -sf $(SONAME) $(BUILD)/libgdn.so

$(BUILD)/gdn: $(CLI_OBJ) $(BUILD)/libgdn.a
	$(CC) $(CFLAGS) $(SAN) -o $@ $(CLI_OBJ) $(BUILD)/libgdn.a $(LDLIBS) $(shell pkg-config --libs libedit 2>/dev/null)

$(BUILD)/check: $(CHECK_OBJ) $(BUILD)/libgdn.a
	$(CC) $(CFLAGS) $(SAN) -o $@ $(CHECK_OBJ) $(BUILD)/libgdn.a $(LDLIBS)

$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(HELP_OBJ) $(BUILD)/libgdn.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(SAN) -o $@ $< $(HELP_OBJ) $(BUILD)/libgdn.a $(LDLIBS) -lcmocka

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(CHECK_OBJ:.o=.d) $(HELP_OBJ:.o=.d) $(UNIT:%.c=$(BUILD)/obj/%.d)
-include tests/tests.mk
