"""`dtq doctor`: prints the findings in a terminal, or as JSON for a program."""

from collections import Counter

import click
import msgspec

from dtq.cli.terminal import printable
from dtq.config import Settings
from dtq.doctor import examine
from dtq.doctor.finding import Finding, State

COLORS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red", State.UNKNOWN: "cyan"}


def run(settings: Settings, as_json: bool) -> int:
    """Prints all findings; returns the exit code: 1 if a check fails, else 0."""
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            click.echo("\n".join(_lines(finding)))
    states = Counter(finding.state for finding in findings)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings)))
    else:
        click.echo(", ".join(f"{states[state]} {state}" for state in State if states[state]))
    return 1 if states[State.FAIL] else 0


def _lines(finding: Finding) -> list[str]:
    """A line with state, name and what was seen; below it, the advice."""
    state = click.style(f"{finding.state:8}", fg=COLORS[finding.state])
    lines = [f"{state} {finding.name:12} {printable(finding.seen)}"]
    return lines + ([f"{'':21} → {printable(finding.advice)}"] if finding.advice else [])
