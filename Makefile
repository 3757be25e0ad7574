# What people run here. `make` alone lists it.

.PHONY: help demo test lint bench install packages

help:
	@echo "make demo     build, then watch layers appear, change and go in a private PostGIS and GeoServer"
	@echo "make test     run all tests against private services"
	@echo "make lint     formatting, lints and documentation, as CI checks them"
	@echo "make bench    measure the first sync beside the least that its parts need"
	@echo "make install  build for use and copy the program to \$$PREFIX/bin (default /usr/local)"

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

install: packages
	cargo build --release
	install -D -m 0755 $(TARGET)/release/borg-slave $(DESTDIR)$(PREFIX)/bin/borg-slave
