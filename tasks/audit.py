"""Auditing: verdicts of a run, a climb or a use case derived again from MLflow alone, or a certificate from its file.

How is in `leastwise.evaluating.audit` and `leastwise.record.certificate.checking`. It asks no model, spends nothing and
writes nothing.
"""

from __future__ import annotations

from prefect import task

from leastwise.errors import BadInput
from leastwise.evaluating.audit import differences, ending_differences
from leastwise.ladder.ending import AuditEnding
from leastwise.record.client import connect
from leastwise.record.judged_runs import ended_climbs, judged_runs, use_case_above
from leastwise.record.run import OUTCOME, RecordedRun
from tasks.pipeline.certify import checked_file
from tasks.session.artifacts import publish_markdown
from tasks.session.console import say

UNSIGNED = "NOT SIGNED: anybody may have written or changed it"


@task(name="audit")
def audit_verdicts(run_or_experiment: str, signer: str = "") -> AuditEnding:
    """Judge one run, a climb's runs, or a whole experiment (a use case's name) again; or hold a certificate's file to
    itself, without any server, and its signature to the fingerprint of a `signer`.
    """
    if run_or_experiment.endswith(".json"):
        return _audit_certificate(run_or_experiment, signer)
    if signer:
        raise BadInput(
            f"signer: {run_or_experiment} is no certificate; name the certificate.json of a climb, or no signer"
        )
    client = connect()
    runs = list(judged_runs(client, run_or_experiment))
    if not runs:
        raise BadInput(
            f"run_or_experiment: {run_or_experiment} holds no run with a verdict; name a climb, stage or use case"
        )
    lines, differing, climbs = list[str](), list[str](), list(ended_climbs(client, run_or_experiment))

    def note(run: RecordedRun, logged: str, problems: list[str]) -> None:
        lines.append(f"| {run.name} | {logged} | {'; '.join(problems) or 'agrees'} |")
        say(f"{'✘' if problems else '✔'} {run.id[:8]}  {run.name}  {'; '.join(problems)}")
        differing.extend([run.id] if problems else [])

    for run in runs:
        note(run, run.verdict, differences(run, use_case_above(run)))
    agreeing = len(runs) - len(differing)
    for climb in climbs:
        note(climb, climb.tag(OUTCOME), ending_differences(climb, climb.use_case()))
    publish_markdown("audit", "| run | verdict | judged again |\n|---|---|---|\n" + "\n".join(lines))
    outcome = "differs" if differing else "agrees"
    reason = f"{agreeing} of {len(runs)} verdicts are derived again from MLflow as they were logged"
    if wrong := len(differing) - (len(runs) - agreeing):
        reason += f", and {wrong} of {len(climbs)} climbs ended otherwise than their stages say"
    return AuditEnding(outcome, reason, len(runs), tuple(differing))


def _audit_certificate(uri: str, signer: str) -> AuditEnding:
    checked = checked_file(uri, signer)
    for problem in checked.problems:
        say(f"✘ {problem}")
    for warning in (*(() if checked.is_signed else (UNSIGNED,)), *checked.warnings):
        say(f"! {warning}")
    by = f"signed by {checked.fingerprint}" if checked.is_signed else UNSIGNED
    if checked.problems:
        reason = f"the certificate does not hold: {'; '.join(checked.problems)}"
        return AuditEnding("differs", reason, checked.verdicts, checked.problems)
    known = "" if signer or not checked.is_signed else " (compare it with the one you know, or give it as --signer)"
    beware = "".join(f"; {warning}" for warning in checked.warnings)
    reason = f"{checked.verdicts} verdicts are derived again from the certificate; {by}{known}{beware}"
    say(reason)
    outcome = "expired" if checked.is_expired else "agrees"
    return AuditEnding(outcome if checked.is_signed else "unsigned", reason, checked.verdicts, ())
