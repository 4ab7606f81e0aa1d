# What is done with this tree. Each target does the set-up that it needs, and says what it installs;
# where the embedded lab is needed it runs as root, through sudo if need be.

PYTHON := .venv/bin/python
# The migration that `make demo` shows, under a capture of the wire, and then the seed's question:
# three guests that keep their VF, by the order of stopping its DMA and marking what it wrote.
DEMO   := tests/lab/test_instrument.py -k independent_capture
ORDERS := tests/lab/test_inplace.py --lab twin \
          -k 'nothing-stopped or marked-then-stopped or stopped-then-marked]'
# Where QEMU does not take the software 82599 (status 13), the demo's port is QEMU's own 82576:
INSTEAD := { [ $$? = 13 ] && .ci/as-root $(PYTHON) -m pytest $(DEMO) --lab emulated-82576; }
# What of the suite CI runs on twins: what the emulated lab has no device for, and what needs a guest
# or a migration more, which take a third of the time there.
TWINS  := --lab twin -m 'not nightly' $(addprefix tests/lab/test_,$(addsuffix .py, inplace \
          jumbo_rule port_side invented_capability capability emulated_vf queues two_vfs)) \
          -k 'not port_side or cables_speed or older_port'
# What of it CI runs on the emulated lab, where ixgbe itself answers: of the table of MTUs two cases,
# one that ixgbe takes and one that it refuses.  On twins its model answers for the whole table.
EMULATED := -m 'not nightly' tests/lab -k '(not port_and_vf_agree or 9000-9000 or 1500-9000) and not \
          (test_queues or test_two_vfs or test_capability or round-trip-64)'
# A guest with the newest kernel, whose driver is another one, shows that it has its VF back too:
NEWEST := --lab twin --guest-kernel backports tests/lab/test_inplace.py -m smoke
# The newest kernel's driver of a port answers a VF as our model of it does:
DRIVER := --host-kernel backports tests/lab/test_port_driver.py
# What of the suite runs once for each of two ports of a chip:
PORTS  := $(addprefix tests/lab/test_,$(addsuffix .py, virtual_functions queues two_vfs failover \
          ground_truth jumbo_rule port_side))
# What of it runs on a port that lends all the VFs that ixgbe makes, where a VF has fewer queues:
MANY   := tests/lab/test_virtual_functions.py tests/lab/test_port_driver.py
# Tests without a lab, side by side; those of one file stay together, since they share machines:
PURE   := -q -n 3 --dist loadfile tests/unit tests/recorded

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: ## migrate a guest with a VF under traffic and report on it; then one that keeps its VF
	@.ci/setup demo
	@.ci/as-root $(PYTHON) -m pytest $(DEMO) || $(INSTEAD)
	@.ci/as-root $(PYTHON) -m pytest $(ORDERS)

test: ## format, lint, types, unit, recorded, browser, and the tests of the embedded lab that take minutes
	@.ci/setup test
	$(static)
	.ci/as-root $(PYTHON) -m pytest $(PURE)
	.ci/as-root $(PYTHON) -m pytest -q tests/browser
	.ci/as-root $(PYTHON) -m pytest $(TWINS)
	.ci/as-root $(PYTHON) -m pytest $(NEWEST)
	.ci/as-root $(PYTHON) -m pytest $(EMULATED)

check: ## the same without browser and embedded lab: no root, a minute or two
	@.ci/setup check
	$(static)
	$(PYTHON) -m pytest $(PURE)

nightly: ## what takes hours: every order, fault and way to stop a VF, on every embedded lab
	@.ci/setup demo
	.ci/as-root $(PYTHON) -m pytest --lab twin tests/lab
	.ci/as-root $(PYTHON) -m pytest tests/lab
	.ci/as-root $(PYTHON) -m pytest --lab emulated-82576 tests/lab
	.ci/as-root $(PYTHON) -m pytest --lab emulated-x520-da2 $(PORTS)
	.ci/as-root $(PYTHON) -m pytest --lab emulated-63-vfs $(MANY)
	.ci/as-root $(PYTHON) -m pytest -q tests/kernel
	.ci/as-root $(PYTHON) -m pytest tests/laptop
	.ci/as-root $(PYTHON) -m pytest tests/clients
	.ci/as-root $(PYTHON) -m pytest $(DRIVER)

lab: ## start the embedded lab and keep it up for work (`.venv/bin/vf-harness lab down` ends it)
	@.ci/setup demo
	@.ci/as-root .venv/bin/vf-harness lab up

bench: ## measure what the harness itself can do on this machine (five hours; PARTS="chip twin" is less)
	@.ci/setup demo
	@.ci/as-root env PYTHONPATH=tests:tests/unit $(PYTHON) -m bench $(PARTS)

clean-machine: ## run `make demo` and `make test` in fresh Debian 12 and 13 trees (half an hour)
	@.ci/setup demo
	@.ci/as-root .ci/clean-machine

lock: ## renew requirements.lock: the newest versions that pyproject.toml allows, with hashes
	@.ci/setup python
	UV_CUSTOM_COMPILE_COMMAND='make lock' .venv/bin/uv pip compile --quiet --upgrade \
	  --universal --fork-strategy fewest --python-version 3.11 --only-binary :all: \
	  --generate-hashes --no-emit-index-url --extra dev --output-file requirements.lock \
	  pyproject.toml

define static
.venv/bin/ruff format --check
.venv/bin/ruff check
.venv/bin/mypy
endef

.PHONY: help demo test check nightly lab bench clean-machine lock
