"""A run's results.json is read back, also one that an older harness wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UsageError
from harness.report.results import FILE, SCHEMA, Results


def read_results(folder: Path) -> Results:
    """Return the results of the run in *folder*, whose file is of schema 1 or 2.

    Raises UsageError if the file is missing, is damaged, or is of a later schema.
    """
    path = folder / FILE
    try:
        document = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UsageError(
            f"{folder} holds no {FILE}",
            because="it is no run's folder, or the run ended before it had results",
            fix="name a folder like reports/latest",
        ) from None
    except ValueError as error:
        raise UsageError(
            f"{path} is not JSON: {error}",
            because="the file was cut off or changed, so none of it can be trusted",
            fix="copy the run's folder again from where it was written",
        ) from None
    if isinstance(document, dict):
        document = _in_this_schema(document, path)
    try:
        return Results.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(
            f"{path} is not of schema {SCHEMA}: {where}: {first['msg']}",
            because=f"{error.error_count()} fields do not fit, so none of it can be trusted",
            fix="read it with the version of the harness that wrote it (provenance.harness)",
        ) from None


def _in_this_schema(document: dict[str, Any], path: Path) -> dict[str, Any]:
    schema = document.get("schema")
    if type(schema) is not int:  # a bool is an int, too
        raise UsageError(
            f"{path} does not say of which schema it is",
            because="its key schema is missing or no number, so none of it can be trusted",
            fix="copy the run's folder again from where it was written",
        )
    if schema > SCHEMA:
        raise UsageError(
            f"{path} is of schema {schema}",
            because=f"a newer harness wrote it; this one reads schemas 1 to {SCHEMA}",
            fix="read it with a newer version of the harness (provenance.harness names one)",
        )
    if schema != 1:
        return document
    try:
        return _from_schema_1(document)
    except (AttributeError, KeyError, TypeError) as missing:
        raise UsageError(
            f"{path} is not of schema 1: {missing!r}",
            because="a part of it is missing or of another kind, so none of it can be trusted",
            fix="copy the run's folder again from where it was written",
        ) from None


def _from_schema_1(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of schema 1 as one of schema 2.

    Raises AttributeError, KeyError or TypeError if a part is missing or is of another kind.
    """
    tests = [
        {**test, "migrations": [_migration(each) for each in test["migrations"]]}
        for test in document["tests"]
    ]
    return {**document, "schema": SCHEMA, "tests": tests}


def _migration(old: dict[str, Any]) -> dict[str, Any]:
    """Return a migration of schema 1 in the words of schema 2.

    Schema 1 wrote the verdict before its sentences, and the sentences with "; " between them.  A
    sentence may itself have "; " in it, so the sentences stay one text.
    """
    reason = old.get("reason")
    word, colon, text = str(reason).partition(": ")
    judged = bool(colon) and word in ("fail", "invalid")
    flows = [
        {**flow, "outages": [{"candidates": None, **each} for each in flow["outages"]]}
        for flow in old["flows"]
    ]
    return {
        **old,
        "verdict": word if judged else "pass",
        "reasons": [text] if judged else [],
        "expected": None,
        "as_expected": not judged,
        "qemu_reason": None if judged else reason,
        "flows": flows,
        "phases": [{"uncertainty_ms": None, **each} for each in old["phases"]],
    }
