"""``farm doctor``: what is the matter, and what to do about it."""

from collections.abc import Iterable
from dataclasses import asdict

import typer

from farm.doctor.findings import Finding, Level, verdict
from producer.commands.terms import Exit, output, print_json, say

MARKS = {Level.OK: ("✓", "green"), Level.WARNING: ("!", "yellow"), Level.ERROR: ("✗", "red")}
#: How wide the names of checks are.
WIDTH = 9


def report(found: Iterable[Finding], *, as_json: bool) -> None:
    """Print findings as they come, then the verdict; exits with 1 if any is an error."""
    findings = []
    for finding in found:
        findings.append(finding)
        if not as_json:
            _show(finding)
    worst = verdict(findings)
    print_json({"verdict": worst, "findings": [asdict(finding) for finding in findings]}, only_if=as_json)
    if not as_json:
        say(_sentence(findings))
    if worst is Level.ERROR:
        raise typer.Exit(Exit.FAILED)


def _show(finding: Finding) -> None:
    mark, style = MARKS[finding.level]
    output.print(mark, style=style, end=" ")
    say(f"{finding.check:<{WIDTH}} {finding.message}")
    if finding.remedy is not None:
        say(f"{'':<{WIDTH + 3}}{finding.remedy}")


def _sentence(findings: list[Finding]) -> str:
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    if counts[Level.ERROR]:
        return f"Something does not work: {counts[Level.ERROR]} errors, {counts[Level.WARNING]} warnings."
    if counts[Level.WARNING]:
        return f"What was looked at works; {counts[Level.WARNING]} warnings."
    return "All is well."
