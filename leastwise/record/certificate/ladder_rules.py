"""What the rules of the ladder say of a certificate's rows: which of them may stand below an outcome, and who won.

Each row for itself is judged in `checking.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from leastwise.ladder import Record, plain_outcome
from leastwise.record.certificate.contents import Certificate
from leastwise.redaction import without_secrets
from leastwise.use_case import LADDER

ORDER = ("reference", *LADDER)


def ladder_problems(certificate: Certificate) -> Iterator[str]:
    """Where the outcome is not the lowest stage that passed, or something below it was neither measured nor skipped."""
    records: dict[str, Record] = {entry.record.stage: entry.record for entry in certificate.ladder}
    yield from _order_problems(certificate)
    yield from _lower_problems(certificate, records)
    yield from _winner_problems(certificate, records)


def resolution_problems(certificate: Certificate, record: Record) -> Iterator[str]:
    """Where a row was resolved as its verdict and the use case do not allow, or a climb may not go past it."""
    assert record.evaluation is not None and record.verdict is not None
    yield from _past_problems(certificate, record)
    if record.verdict.outcome != "UNDECIDED":
        if record.resolution:
            yield f"it is {record.verdict.outcome}, and was resolved as {record.resolution}"
        return
    if record.resolution != "pass" or record.by_person:
        return
    if plain_outcome(record.evaluation, certificate.wanted.gate_requirements) != "PASS":
        yield "it counts as passed, and its plain estimate does not meet the bounds"
    if certificate.wanted.on_undecided != "estimate":
        yield f"it counts as passed by its estimate, and on_undecided is {certificate.wanted.on_undecided}"


def _past_problems(certificate: Certificate, record: Record) -> Iterator[str]:
    """Whether the climb may have gone past this record: on FAIL, or on UNDECIDED that was resolved to climb."""
    if record.verdict is None or record.stage not in _below(certificate) or record.passed:
        return
    if record.verdict.outcome == "ERROR":
        yield f"it ended in error, and no climb goes past an error ({record.verdict.reason})"
    elif record.verdict.outcome == "UNDECIDED" and record.resolution != "climb":
        yield f"it is UNDECIDED, resolved as {record.resolution or 'nothing'}: no climb goes past that"


def _below(certificate: Certificate) -> tuple[str, ...]:
    return LADDER[: LADDER.index(certificate.outcome)] if certificate.outcome in LADDER else ()


def _order_problems(certificate: Certificate) -> Iterator[str]:
    stages = [entry.record.stage for entry in certificate.ladder]
    twice = {stage for stage in stages if stages.count(stage) > 1}
    for stage in sorted(twice):
        yield f"ladder: {stage} stands in it twice"
    if stages != sorted(stages, key=ORDER.index):
        yield f"ladder: {', '.join(stages)} is not the order of the ladder"
    last = LADDER.index(certificate.wanted.last_stage)
    for stage in (certificate.outcome, *(each.stage for each in certificate.saving.avoided)):
        if stage in LADDER[last + 1 :]:
            yield f"ladder: {stage} is above last_stage, {certificate.wanted.last_stage}"


def _lower_problems(certificate: Certificate, records: Mapping[str, Record]) -> Iterator[str]:
    reference = records.get("reference")
    if reference and reference.passed and certificate.wanted.reference == "stop" and certificate.outcome != "reference":
        yield f"ladder: the reference passed, so that {certificate.outcome} is not the least that will do"
    for stage in _below(certificate):
        if stage not in records:
            yield f"ladder: {stage}, below {certificate.outcome}, is missing: neither measured nor skipped"
        elif records[stage].passed:
            yield f"ladder: {stage} passed, so that {certificate.outcome} is not the least that will do"


def _winner_problems(certificate: Certificate, records: Mapping[str, Record]) -> Iterator[str]:
    won = records.get(certificate.outcome)
    if won is None or not won.passed or won.evaluation is None:
        yield f"ladder: {certificate.outcome} is the outcome, and did not pass"
        return
    if certificate.outcome == "reference" and certificate.wanted.reference != "stop":
        yield "ladder: the reference is the outcome, and the use case only reports it"
    if certificate.sure != won.is_sure:
        yield f"sure: {certificate.sure} is written, and {certificate.outcome} is {'' if won.is_sure else 'not '}sure"
    if certificate.winner and certificate.winner.key != won.evaluation.candidate:
        yield f"winner: {certificate.winner.key} is not the candidate that was measured ({won.evaluation.candidate})"
    if (certificate.winner is None) != (certificate.outcome == "reference"):
        yield "winner: a stage has one, the reference has none"
    priced = {without_secrets(each.uri) for each in certificate.prices.models}
    if certificate.winner and certificate.winner.weights is None and certificate.winner.model not in priced:
        yield f"winner: its model {certificate.winner.model} is none of those whose prices are here"
