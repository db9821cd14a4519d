# tests.mk - how the tests are built and run, and what is installed; included by the Makefile.
#
# make test               all of it, counted in one last line (tests/run-all.sh)
# make unit check         unit tests; kernel variants against their reference
# make test-long          slow sweeps that make test leaves out
# make bench-kernels      kernel speed; NAME=delta for one family
# make san tsan fuzz      parts of make test; make fuzz T=NAME FUZZ_TIME=600 for one parser
# make install uninstall  PREFIX=/usr/local DESTDIR=
# make compile_commands.json   for editors

FUZZ_TIME ?= 5
NAME      ?=
T         ?=

.PHONY: test test-long unit unit-bins check bench-kernels san tsan fuzz fuzz-bins install uninstall

RUN_ALL = env -u MAKEFLAGS -u MAKELEVEL MAKE='$(MAKE)' BUILD='$(BUILD)' FUZZ_TIME='$(FUZZ_TIME)' T='$(T)' \
          sh tests/run-all.sh

test:
	@$(RUN_ALL)
san tsan fuzz:
	@$(RUN_ALL) $@

unit-bins: $(UNIT_BIN)
unit: $(UNIT_BIN)
	@set -e; for t in $(UNIT_BIN); do echo "== $$t"; $$t; done

# Built like a unit test.
LONG     := $(sort $(wildcard tests/long/test_*.c))
LONG_BIN := $(LONG:tests/long/%.c=$(BUILD)/long/%)
$(BUILD)/long/%: $(BUILD)/obj/tests/long/%.o $(HELP_OBJ) $(BUILD)/libgdn.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(SAN) -o $@ $< $(HELP_OBJ) $(BUILD)/libgdn.a $(LDLIBS) -lcmocka
test-long: $(LONG_BIN) $(BUILD)/xpu/kernels
	@set -e; for t in $(LONG_BIN); do echo "== $$t"; $$t; done
	tests/xpu/oclgrind.sh $(abspath $(BUILD))/xpu/kernels
-include $(LONG:%.c=$(BUILD)/obj/%.d)

# A driver of OpenCL that fails when it is told to, for the xpu device's test of that.
STUB := $(BUILD)/opencl_stub/libOpenCL.so.1
$(STUB): tests/opencl_stub/stub.c tests/opencl_stub/stub.h
	@mkdir -p $(@D)
	$(CC) $(WARN) $(CPPFLAGS) $(CFLAGS) $(SAN) -fPIC -shared -o $@ $<
$(BUILD)/unit/test_xpu_bad: $(STUB)

# What Intel's offline compiler makes of the kernels; make xpu-offline-short: Debian 12's alone.
$(BUILD)/xpu-sources: tests/xpu/sources.c $(BUILD)/libgdn.a
	$(CC) $(WARN) $(CPPFLAGS) $(CFLAGS) $(SAN) -o $@ $< $(BUILD)/libgdn.a $(LDLIBS)
.PHONY: xpu-offline xpu-offline-short
xpu-offline: $(BUILD)/xpu-sources
	BUILD=$(BUILD) sh tests/xpu/offline.sh
xpu-offline-short: $(BUILD)/xpu-sources
	BUILD=$(BUILD) sh tests/xpu/offline.sh --short

# Every kernel of the xpu device, for oclgrind.
$(BUILD)/xpu/%: $(BUILD)/obj/tests/xpu/%.o $(BUILD)/libgdn.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(SAN) -o $@ $< $(BUILD)/libgdn.a $(LDLIBS)
-include $(BUILD)/obj/tests/xpu/kernels.d

check: $(BUILD)/check
	$(BUILD)/check $(NAME)
bench-kernels: $(BUILD)/check
	$(BUILD)/check --bench $(NAME)

# libFuzzer programs, with clang and SAN=-fsanitize=address,undefined,fuzzer-no-link.
FUZZ_BIN := $(FUZZ:tests/fuzz/%.c=$(BUILD)/fuzz/%)
$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/libgdn.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(SAN) -fsanitize=fuzzer -o $@ $< $(BUILD)/libgdn.a $(LDLIBS)
fuzz-bins: $(FUZZ_BIN)
-include $(FUZZ:%.c=$(BUILD)/obj/%.d)

# The demo model goes to PREFIX/share/gdn/models/jargon, where bin/gdn looks for it.  ldconfig makes
# a new libgdn.so known to the loader; it needs root, and only the system's folders need it.
INSTALL_BIN   = $(DESTDIR)$(PREFIX)/bin
INSTALL_LIB   = $(DESTDIR)$(PREFIX)/lib
INSTALL_INC   = $(DESTDIR)$(PREFIX)/include/gdn
INSTALL_SHARE = $(DESTDIR)$(PREFIX)/share/gdn
INSTALL_DOC   = $(DESTDIR)$(PREFIX)/share/doc/gdn
HEADERS      := $(wildcard include/gdn/*.h)
JARGON       := $(addprefix models/jargon/,README.md config.json generation_config.json tokenizer.json \
                  tokenizer_config.json chat_template.jinja model.safetensors)

install: $(BUILD)/gdn $(BUILD)/libgdn.a $(BUILD)/libgdn.so.$(VERSION) $(BUILD)/gdn.pc
	install -d $(INSTALL_BIN) $(INSTALL_LIB)/pkgconfig $(INSTALL_INC) $(INSTALL_SHARE)/models/jargon $(INSTALL_DOC)
	install -m 755 $(BUILD)/gdn $(INSTALL_BIN)/gdn
	install -m 644 $(BUILD)/libgdn.a $(INSTALL_LIB)/libgdn.a
	install -m 755 $(BUILD)/libgdn.so.$(VERSION) $(INSTALL_LIB)/libgdn.so.$(VERSION)
	ln -sf libgdn.so.$(VERSION) $(INSTALL_LIB)/$(SONAME)
	ln -sf $(SONAME) $(INSTALL_LIB)/libgdn.so
	install -m 644 $(BUILD)/gdn.pc $(INSTALL_LIB)/pkgconfig/gdn.pc
	install -m 644 $(HEADERS) $(INSTALL_INC)/
	install -m 644 $(JARGON) $(INSTALL_SHARE)/models/jargon/
	install -m 644 LICENSE $(wildcard README.md CHANGELOG.md) $(INSTALL_DOC)/
	@[ -n "$(DESTDIR)" ] || PATH="$$PATH:/usr/sbin:/sbin" ldconfig 2>/dev/null || true

uninstall:
	rm -f $(INSTALL_BIN)/gdn $(INSTALL_LIB)/libgdn.a $(INSTALL_LIB)/pkgconfig/gdn.pc
	rm -f $(INSTALL_LIB)/libgdn.so $(INSTALL_LIB)/$(SONAME) $(INSTALL_LIB)/libgdn.so.$(VERSION)
	rm -rf $(INSTALL_INC) $(INSTALL_SHARE) $(INSTALL_DOC)

# Written anew each time: PREFIX may have changed since.
.PHONY: $(BUILD)/gdn.pc
$(BUILD)/gdn.pc:
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'Name: gdn' 'Description: Qwen3-Next and Qwen3.5 models' \
	  'Version: $(VERSION)' 'Requires.private: $(PKGS)' 'Cflags: -I$${prefix}/include' \
	  'Libs: -L$${prefix}/lib -lgdn' 'Libs.private: -lm -pthread' > $@

.PHONY: compile_commands.json
compile_commands.json:
	@$(MAKE) -Bnk --no-print-directory $(BUILD)/gdn $(BUILD)/check unit-bins fuzz-bins 2>/dev/null | \
	  awk -v dir='$(CURDIR)' -f tests/compile_commands.awk > $@.new; mv $@.new $@
