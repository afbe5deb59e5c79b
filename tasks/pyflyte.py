"""What does Millrace change about ``pyflyte``? The default cache policy, and how an expected error is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from flytekit import CachePolicy
from flytekit.configuration.plugin import FlytekitPlugin

from lakehouse.errors import MillraceError


class MillracePlugin(FlytekitPlugin):  # type: ignore[misc]  # flytekit publishes no types
    """Loaded by flytekit through the entry point ``flytekit.configuration.plugin``."""

    @staticmethod
    def configure_pyflyte_cli(main: click.Group) -> click.Group:
        """Show a MillraceError as its one sentence and the way out; every other error as flytekit does."""
        from flytekit.clis.sdk_in_container.utils import pretty_print_exception
        from flytekit.loggers import get_level_from_cli_verbosity, logger

        def invoke(ctx: click.Context) -> object:
            verbosity = ctx.params["verbose"]
            logger.setLevel(get_level_from_cli_verbosity(verbosity))
            try:
                return super(type(main), main).invoke(ctx)
            except Exception as error:
                known = next((e for e in _chain(error) if isinstance(e, MillraceError)), None)
                if known is None or verbosity:
                    pretty_print_exception(error, verbosity)
                else:
                    click.echo(known.explain(), err=True)
                sys.exit(1)

        main.invoke = invoke  # type: ignore[method-assign]
        return main

    @staticmethod
    def get_default_cache_policies() -> list[CachePolicy]:
        """Tasks declared with ``cache=True`` alone get Millrace's policy."""
        from tasks.cache import ProjectDigest

        return [ProjectDigest()]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and everything it was raised from; flytekit wraps what a task raises."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        current = todo.pop()
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            todo += [current.__context__, current.__cause__, getattr(current, "value", None)]
