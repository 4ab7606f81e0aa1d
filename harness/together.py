"""Things that are done on several machines at the same time, and undone so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def together(contexts: Iterable[AbstractContextManager[T]]) -> Iterator[list[T]]:
    """Enter *contexts* side by side, and leave them so; give what each gives, in their order.

    Every context is entered and left in a thread of its own, so that it is never left while it is
    being entered, not even after Ctrl-C.  A context that is left does not learn of an error of the
    body or of another context.  Raises the first error, in the order of *contexts*, which has the
    others as its notes.
    """
    with ExitStack() as threads:
        stacks = [(context, ExitStack()) for context in contexts]
        pools = [threads.enter_context(ThreadPoolExecutor(1)) for _ in stacks]
        try:
            yield _each(pools, [partial(stack.enter_context, context) for context, stack in stacks])
        finally:
            _each(pools, [stack.close for _, stack in stacks])


def _each(pools: Sequence[ThreadPoolExecutor], calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make every call in the pool of its own, and return what they give once all have ended."""
    called = [pool.submit(call) for pool, call in zip(pools, calls, strict=True)]
    wait(called)
    errors = [error for each in called if (error := each.exception())]
    for other in errors[1:]:
        errors[0].add_note(f"at the same time: {other}")
    return [each.result() for each in called]
