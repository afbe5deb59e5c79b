"""What is the ``millrace`` command? A group whose verbs are loaded when they are used, and what it does with errors."""

from __future__ import annotations

import sys
from importlib import import_module

import click

#: Each verb and the module that holds it, in the order of ``--help``.
VERBS = {
    "init": "cli.init",
    "tables": "cli.tables",
    "history": "cli.tables",
    "describe": "cli.describe",
    "diff": "cli.diff",
    "drift": "cli.drift",
    "tag": "cli.tag",
    "check": "cli.check",
    "sql": "cli.sql",
    "quarantine": "cli.quarantine",
    "restore": "cli.restore",
    "pins": "cli.pins",
    "optimize": "cli.maintenance",
    "vacuum": "cli.maintenance",
    "maintain": "cli.maintenance",
    "erase": "cli.erase",
    "plan": "cli.plan",
    "lineage": "cli.lineage",
    "runs": "cli.runs",
    "show": "cli.runs",
    "why": "cli.why",
    "replay": "cli.replay",
    "bisect": "cli.bisect",
    "backfill": "cli.backfill",
    "cost": "cli.cost",
    "card": "cli.card",
    "approve": "cli.card",
    "llm": "cli.llm",
    "serve": "cli.serve",
    "deploy": "cli.deploy",
    "feedback": "cli.feedback",
    "monitor": "cli.monitor",
    "simulate": "cli.simulate",
}


class VerbGroup(click.Group):
    """Loads a verb's module on first use and turns every error into words.

    Exit status: 0 done, 1 an error that was explained, 2 wrong usage, 130 interrupted.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        verb = getattr(import_module(VERBS[cmd_name]), cmd_name)
        assert isinstance(verb, click.Command)
        return verb

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from lakehouse.errors import suggestion

            ctx.fail(f"There is no verb {args[0]!r}. {suggestion(args[0], list(VERBS), what='Verbs')}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a closed pipe is noticed here and not at the interpreter's end
            return result
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click ends these quietly
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except Exception as error:
            if ctx.params["debug"]:
                raise
            click.echo("\n".join(_explained(error)), err=True)
            ctx.exit(1)


def _explained(error: Exception) -> list[str]:
    """What to print about an error: ours with the way out, any other with its type."""
    from cli.output import printable
    from lakehouse.errors import MillraceError

    if isinstance(error, MillraceError):
        lines = error.explain().splitlines()
    else:
        first = (str(error).strip().splitlines() or [""])[0]
        lines = [f"error: {type(error).__name__}: {first}", "  fix: Run it with `millrace --debug …` to see where."]
    return [printable(line) for line in lines]


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--lake",
    help="Folder or s3:// URL of the lake.  [default: LAKEHOUSE_ROOT, else lake/ in MILLRACE_STATE]",
)
@click.option("--debug", is_flag=True, envvar="MILLRACE_DEBUG", help="Show where an error was raised.")
def main(lake: str | None, debug: bool) -> None:
    """Ask a lake: its tables and versions, their rows in SQL, and what each run did."""


if __name__ == "__main__":
    main(prog_name="millrace")
