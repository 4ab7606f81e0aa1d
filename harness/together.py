"""Contexts of several machines are entered at the same time, and left at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def together(contexts: Iterable[AbstractContextManager[T]]) -> Iterator[list[T]]:
    """Enter all *contexts* at the same time and leave them at the same time.

    The body gets a list of what the contexts give, in their order.  Each context has a thread of
    its own.  After Ctrl-C this waits until every context that was being entered has been entered
    and left.  No context learns of an error of the body or of another context.  Raises the error
    with the largest exit code, or the first of several with that code; the other errors become
    its notes.
    """
    with ExitStack() as threads:
        stacks = [(context, ExitStack()) for context in contexts]
        pools = [threads.enter_context(ThreadPoolExecutor(1)) for _ in stacks]
        try:
            entering = _begin(
                pools, [partial(stack.enter_context, context) for context, stack in stacks]
            )
            wait(entering)
            yield _results(entering)
        finally:
            leaving = _begin(pools, [stack.close for _, stack in stacks])
            try:
                wait(leaving)
            finally:  # after Ctrl-C too: raise the error of a host that could not be put back
                wait(leaving)
                _results(leaving)


def _begin(
    pools: Sequence[ThreadPoolExecutor], calls: Sequence[Callable[[], Any]]
) -> list[Future[Any]]:
    return [pool.submit(call) for pool, call in zip(pools, calls, strict=True)]


def _results(called: Sequence[Future[Any]]) -> list[Any]:
    """Return what calls gave that have ended, or raise their worst error."""
    errors = [error for each in called if (error := each.exception())]
    if errors:
        worst = max(errors, key=lambda error: getattr(error, "exit_code", 0))
        for other in errors:
            if other is not worst:
                worst.add_note(f"at the same time, {type(other).__name__}: {other}")
        raise worst
    return [each.result() for each in called]
