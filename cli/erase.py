"""How is a person removed from the lake? ``millrace erase``."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import format_option, printable, show_json

if TYPE_CHECKING:
    from lakehouse.privacy.erasure import Certificate, Survey


@click.command()
@click.option("--subject", required=True, metavar="COLUMN=VALUE", help="Who, such as user_id=42.")
@click.option("--reason", default="", help="Why; the certificate keeps it.")
@click.option("--requested-by", default=getpass.getuser, show_default="who runs this", help="Who asked.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@format_option("text", "json")
def erase(subject: str, reason: str, requested_by: str, dry_run: bool, yes: bool, output_format: str) -> None:
    """Remove a person from every table, version and file, and refuse them from then on."""
    import features.tables  # noqa: F401  (declares them)
    from lakehouse.privacy.erasure import erase as erase_subject
    from lakehouse.privacy.erasure import survey

    column, equals, value = subject.partition("=")
    if not (column and equals and value):
        raise click.BadParameter(f"{subject!r} is not COLUMN=VALUE, such as user_id=42.", param_hint="--subject")
    lake = open_lake()
    if dry_run or not yes:
        found = survey(lake, subject=column, value=value)
        if dry_run and output_format == "json":
            show_json(found.model_dump(mode="json"))
            return
        click.echo("\n".join(_found(found)), err=not dry_run)
        if dry_run:
            return
        click.confirm(f"Erase {printable(subject)} for good?", abort=True, err=True)
    certificate = erase_subject(lake, subject=column, value=value, reason=reason, requested_by=requested_by)
    if output_format == "json":
        show_json(certificate.model_dump(mode="json"))
    else:
        click.echo(printable_lines(_certified(certificate)))


def printable_lines(lines: list[str]) -> str:
    """Lines that can't move the cursor, whatever the ledger holds."""
    return "\n".join(printable(line) for line in lines)


def _found(found: Survey) -> list[str]:
    lines = [
        f"{name}: {rows} row(s) now, in versions {_list(found.versions[name])}" for name, rows in found.rows.items()
    ]
    lines += [f"{name}: {rows} refused row(s)" for name, rows in found.quarantined.items()]
    lines += [f"staged batch {batch}" for batch in found.staged]
    if found.answers:
        lines.append(f"{found.answers} captured answer(s)")
    lines += [
        f"model {m.digest[:12]} ({'promoted' if m.promoted else 'not promoted'}), run {m.run_id}" for m in found.models
    ]
    lines += [f"not examined, as nobody declared it: {name}" for name in found.unexamined]
    return lines or ["nothing"]


def _certified(certificate: Certificate) -> list[str]:
    return [
        f"Certificate {certificate.erasure_id}",
        f"requested {certificate.requested_at:%Y-%m-%d %H:%M:%S} UTC by {certificate.requested_by}",
        f"reason    {certificate.reason or '-'}",
        f"finished  {certificate.finished_at:%Y-%m-%d %H:%M:%S} UTC",
        "found:",
        *(f"  {line}" for line in _found(certificate.found)),
        "done:",
        *(f"  {name}@{version} is published without the person" for name, version in certificate.new_versions.items()),
        *(
            f"  {name}: versions {_list(versions)} can no longer be read"
            for name, versions in certificate.removed.items()
        ),
        *(
            f"  {name}: pinned versions {_list(versions)} are redacted"
            for name, versions in certificate.redacted.items()
        ),
        "remains:",
        *(f"  {line}" for line in certificate.remains),
    ]


def _list(versions: list[int]) -> str:
    return ", ".join(str(version) for version in versions)
