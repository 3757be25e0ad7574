# What people run here. `make` alone lists it.

.PHONY: help demo test lint bench build install deb packages

help:
	@echo "make demo     build, then watch layers appear, change and go in a private PostGIS and GeoServer"
	@echo "make test     run all tests against private services"
	@echo "make lint     formatting, lints and documentation, as CI checks them"
	@echo "make bench    measure the first sync beside the least that its parts need"
	@echo "make install  build for use and copy program, manual pages and completions below \$$PREFIX (default /usr/local)"
	@echo "make deb      build a Debian package (needs cargo-deb: cargo install cargo-deb)"

PREFIX ?= /usr/local

# Where cargo builds when somebody has set another place.
TARGET = $(or $(CARGO_TARGET_DIR),target)

packages:
	@scripts/debian-packages

demo: packages
	cargo build --quiet --bins --example demo
	$(TARGET)/debug/examples/demo

test: packages
	cargo test

lint: packages
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

bench: packages
	cargo bench --bench first_sync

# Manual pages and completions come from the program itself.
SHARE = $(TARGET)/release/share

build: packages
	cargo build --release
	rm -rf $(SHARE)
	mkdir -p $(SHARE)/completions
	$(TARGET)/release/borg-slave manpage $(SHARE)/man
	$(TARGET)/release/borg-slave completions bash > $(SHARE)/completions/borg-slave
	$(TARGET)/release/borg-slave completions zsh > $(SHARE)/completions/_borg-slave
	$(TARGET)/release/borg-slave completions fish > $(SHARE)/completions/borg-slave.fish

install: build
	install -D -m 0755 $(TARGET)/release/borg-slave $(DESTDIR)$(PREFIX)/bin/borg-slave
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 0644 $(SHARE)/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -D -m 0644 $(SHARE)/completions/borg-slave $(DESTDIR)$(PREFIX)/share/bash-completion/completions/borg-slave
	install -D -m 0644 $(SHARE)/completions/_borg-slave $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_borg-slave
	install -D -m 0644 $(SHARE)/completions/borg-slave.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/borg-slave.fish

# cargo-deb leaves alone what was built.
deb: build
	gzip -9nk $(SHARE)/man/*.1
	cargo deb --no-build
