# tidegate: `make run` starts the demo, `make test` runs every test.
#
#   make run     sets up what it needs, builds, runs the demo: devices, the gateway, a stand-in cloud
#   make test    sets up what it needs, runs every kind of test at a size fit for CI
#   make proof   the same programs at full size; each suite can be run again by its name
#   make bench   what a message costs, beside mosquitto and in instructions: make bench ROWS="pipe fan-out" ROUNDS=1
#   make deb     the package for this architecture, or for another one: make deb ARCH=arm64

.PHONY: run test proof bench deb setup setup-run setup-bench setup-deb

ARCH = $(shell dpkg --print-architecture)

run: setup-run
	tests/demo/run

test: setup
	tests/suites/all

proof: setup
	TIDEGATE_SIZE=proof tests/suites/all $(SUITE)

bench: setup-bench
	tests/bench/side-by-side
	tests/suites/all 35-counts

deb: setup-deb
	cross/build $(ARCH)

setup:
	tests/setup all

setup-run:
	tests/setup run

setup-bench:
	tests/setup bench

setup-deb:
	tests/setup deb $(ARCH)
