"""Programs that run on hosts, each as one file: a zipapp of its package and what that imports."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import harness

AGENT, TWIN = "agent", "twin"
"""The programs, each named for its package; what they carry beside it is ``uapi``."""

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same sources give the same bytes
# Older Pythons cannot read what follows, so they are told apart here.
_MAIN = """\
import json
import sys

if sys.version_info < (3, 9):
    fault = {
        "what": "python3 is version %%d.%%d" %% sys.version_info[:2],
        "because": "what runs here needs Python 3.9 or newer",
        "fix": "install a newer python3 on the host",
    }
    print(json.dumps({"error": fault}))
    sys.exit(1)

from harness.%s.__main__ import main

sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Zipapp:
    """The file's content, and a name that changes with it."""

    data: bytes
    name: str


@functools.cache
def build(program: str = AGENT) -> Zipapp:
    """Build the zipapp of the sources as they are now, once per process."""
    root = Path(harness.__file__).parent
    sources = [root / "__init__.py"]
    for package in (program, "uapi"):
        sources += sorted((root / package).glob("*.py"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", (_MAIN % program).encode())
        for source in sources:
            _add(archive, str(source.relative_to(root.parent)), source.read_bytes())
    data = buffer.getvalue()
    return Zipapp(data, f"{program}-{hashlib.sha256(data).hexdigest()[:16]}.pyz")


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), data, zipfile.ZIP_DEFLATED)
