"""A headless browser out of a tree of Debian packages, the same one whatever this machine has."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from harness.lab.chroot import in_tree
from harness.lab.tree import Recipe, check_root, tree
from harness.plugin.progress import progress

CHROMIUM = Recipe(
    (
        "chromium-headless-shell",  # what nearly everybody's browser is made of, without a window
        "fonts-dejavu-core",  # text has the size of text only with a font
    )
)


@pytest.fixture(scope="session")
def browser(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Browser]:
    """One browser for all tests; temporary files are where they are outside."""
    folders = [Path(tempfile.gettempdir()), tmp_path_factory.getbasetemp()]
    check_root()
    starter = tmp_path_factory.mktemp("browser") / "chromium"
    command = in_tree(
        tree(CHROMIUM, "a headless browser's file tree", progress(request.config)),
        "chromium-headless-shell",
        binds={str(each): each for each in (Path("/proc"), *folders)},
    )
    starter.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    starter.chmod(0o755)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=starter)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window that is 1280 by 800, with nothing in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()
