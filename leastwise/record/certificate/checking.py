"""Holding a certificate to itself: its signature, its fields, and everything in it that can be derived again.

Verdicts are judged again by `leastwise.ladder.judge` from the intervals inside, the outcome by the rules of the ladder,
sums and dates by arithmetic. It opens no connection, reads no record and needs nothing but the file. That the intervals
are those of the answers only the record can tell (`leastwise.evaluating.audit`); here the signature vouches for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, ValidationError

from leastwise.errors import BadInput
from leastwise.evidence.measurement import Measurement
from leastwise.ladder import Record, judge
from leastwise.money.price_book import DAYS_UNTIL_STALE
from leastwise.record.certificate.contents import FORMAT, Certificate, Entry, running_of, saving_of
from leastwise.record.certificate.ladder_rules import ladder_problems, resolution_problems
from leastwise.record.certificate.signing import Signature, problem_of
from leastwise.rows.gate_rows import gate_hash
from leastwise.rows.use_case_file import explain
from leastwise.stores.tables.table_formats import strict_json
from leastwise.use_case import LADDER

ROUNDING = 1e-9
CLOCKS_DIFFER = timedelta(hours=26)  # time zones that somebody forgot, and some
NAME_ONE = "name the certificate.json of a climb"
CONFIRMED_BY = ("quality", "adherence")  # what the test split is measured on, where it is required
BESIDE_THE_GATE = frozenset({"ood_decline", "shift_quality", "general_ability"})  # requirements with rows of their own


@dataclass(frozen=True)
class Checked:
    """What a check found. `problems`: what does not hold together. `warnings`: what is true and should be known.

    `is_expired`: what it says was so, and is not said of today.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    verdicts: int
    fingerprint: str
    certificate: Certificate | None
    is_expired: bool = False

    @property
    def is_signed(self) -> bool:
        """Whether somebody signed it, rightly or not."""
        return bool(self.fingerprint)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    certificate: dict[str, object]
    signature: Signature | None


def check_certificate(data: bytes, source: str, now: datetime, signer: str = "") -> Checked:
    """Check the bytes of a certificate's file at this moment; `signer` is the fingerprint its signature must have.

    BadInput where it is no certificate at all.
    """
    written = _parsed(data, source)
    signature = written.signature
    problems = list(_signature_problems(written, signer))
    try:
        certificate = Certificate.model_validate(written.certificate)
    except ValidationError as error:
        return Checked((*problems, f"certificate: {explain(error)}"), (), 0, _fingerprint(signature), None)
    verdicts, warnings = sum(entry.record.evaluation is not None for entry in certificate.ladder), list[str]()
    try:
        problems += _problems(certificate, now)
        warnings += _warnings(certificate, now)
    except ArithmeticError as error:  # a day or a count that nobody writes in earnest
        problems.append(f"certificate: a number in it is beyond all bounds ({error})")
    is_expired = certificate.expires_at.tzinfo is not None and now > certificate.expires_at
    return Checked(tuple(problems), tuple(warnings), verdicts, _fingerprint(signature), certificate, is_expired)


def _fingerprint(signature: Signature | None) -> str:
    return signature.fingerprint if signature else ""


def _parsed(data: bytes, source: str) -> _File:
    try:
        raw = strict_json(data)
        json.dumps(raw, ensure_ascii=False).encode()  # half a character, as an escape, is none that could be shown
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source}: is not JSON ({error}); {NAME_ONE}") from None
    try:
        written = _File.model_validate(raw)
    except ValidationError as error:
        raise BadInput(f"{source}: is no certificate ({explain(error)}); {NAME_ONE}") from None
    if written.certificate.get("format") != FORMAT:
        raise BadInput(
            f"{source}: format is {written.certificate.get('format')!r}, and this version reads {FORMAT}; take the "
            "version of Leastwise that wrote it"
        )
    return written


def _signature_problems(written: _File, signer: str) -> Iterator[str]:
    signature = written.signature
    if signature is None:
        if signer:
            yield f"signature: there is none, and one of {signer} is wanted"
        return
    if problem := problem_of(written.certificate, signature):
        yield f"signature: {problem}"
    if signer and signature.fingerprint != signer:
        yield f"signature: it is of {signature.fingerprint}, not of {signer}"


def _problems(certificate: Certificate, now: datetime) -> Iterator[str]:
    if certificate.alpha_drawn > certificate.wanted.alpha * (1 + ROUNDING):
        yield f"alpha_drawn: {certificate.alpha_drawn:.4g} is more than alpha, {certificate.wanted.alpha:.4g}"
    for entry in certificate.ladder:
        yield from (f"{entry.record.stage}: {problem}" for problem in _entry_problems(certificate, entry))
    yield from ladder_problems(certificate)
    yield from _confirmation_problems(certificate)
    yield from _money_problems(certificate)
    yield from _data_problems(certificate)
    yield from _date_problems(certificate, now)


def _entry_problems(certificate: Certificate, entry: Entry) -> Iterator[str]:
    """One row judged again from its own intervals."""
    record, wanted = entry.record, certificate.wanted
    if record.evaluation is None or record.verdict is None:
        if not record.skipped:
            yield "it is neither measured nor skipped with a reason"
        return
    if record.skipped:
        yield "it is skipped and measured at once"
    again = judge(record.evaluation, wanted.gate_requirements)
    if again.outcome != record.verdict.outcome:
        yield f"{record.verdict.outcome} is written, the intervals give {again.outcome} ({again.reason})"
    elif again != record.verdict:
        yield f"its reasons are not those of its intervals ({again.reason})"
    if record.evaluation.stage != record.stage:
        yield f"its evaluation is of {record.evaluation.stage}"
    for name, measured in record.evaluation.measurements.items():
        yield from _measurement_problems(certificate, name, measured, record)
    if record.stage not in ("cache", "reference") and record.evaluation.gate_hash != certificate.gate_hash:
        yield f"it was judged on {record.evaluation.gate_hash}, not on the gate rows {certificate.gate_hash}"
    yield from resolution_problems(certificate, record)


def _measurement_problems(certificate: Certificate, name: str, measured: Measurement, record: Record) -> Iterator[str]:
    if measured.name != name:
        yield f"{name} is the measurement of {measured.name}"
    if measured.lower > measured.upper:
        yield f"{name}: its interval ends before it begins"
    rows = next((table.rows for table in certificate.data if table.name == "gate"), 0)
    if name not in BESIDE_THE_GATE and record.stage != "cache" and max(measured.n, measured.rows) > rows:
        yield f"{name}: {max(measured.n, measured.rows):,} rows are behind it, and the gate set has {rows:,}"
    if record.stage == "reference" and certificate.wanted.reference != "stop":
        return  # reported, judged for nothing: it spends no alpha
    assert record.evaluation is not None
    alphas = {each.alpha_pass for each in record.evaluation.measurements.values()}
    most = min(certificate.alpha_drawn, certificate.wanted.alpha) * (1 + ROUNDING)
    if len(alphas) > 1 or measured.alpha_pass > most:
        yield f"{name}: alpha_pass {measured.alpha_pass:.4g} is not the one share of at most {most:.4g}"
    to_fail = certificate.wanted.alpha / len(certificate.wanted.gate_requirements)
    if abs(measured.alpha_fail - to_fail) > ROUNDING:
        yield f"{name}: alpha_fail {measured.alpha_fail:.4g} is not {to_fail:.4g}"


def _confirmation_problems(certificate: Certificate) -> Iterator[str]:
    """Whether the test figures reach the gate's limits, as the climb asks it."""
    limits = {each.name: each.limit for each in certificate.wanted.gate_requirements}
    met = all(figure.estimate >= limits[name] for name, figure in certificate.test.items() if name in limits)
    again = ("yes" if met else "no") if certificate.test else "not measured"
    for name in CONFIRMED_BY if certificate.test else ():
        if name in limits and name not in certificate.test:
            yield f"test: {name} is required, and its figure on the test split is missing"
    rows = next((table.rows for table in certificate.data if table.name == "test"), math.inf)
    for name, figure in certificate.test.items():
        if not 0 < figure.n <= rows:
            yield f"test.{name}: it cannot be the figure of {figure.n:,} rows"
    if certificate.confirmed != again:
        yield f"confirmed: {certificate.confirmed} is written, the test figures give {again}"


def _money_problems(certificate: Certificate) -> Iterator[str]:
    saving, again = certificate.saving, saving_of(certificate.saving.avoided)
    for name in ("expected_usd", "least_usd", "most_usd"):
        if not _equal(getattr(saving, name), getattr(again, name)):
            yield f"saving.{name}: {getattr(saving, name):.6g} is written, its stages give {getattr(again, name):.6g}"
    done = {entry.record.stage for entry in certificate.ladder}
    low = LADDER.index(certificate.outcome) if certificate.outcome in LADDER else -1
    for each in saving.avoided:
        if each.stage in done or LADDER.index(each.stage) <= low:
            yield f"saving: {each.stage} was not avoided"
        if each.expected_usd > each.most_usd * (1 + ROUNDING):
            yield f"saving: {each.stage} is expected to cost more than its worst case"
    won = next((entry.record for entry in certificate.ladder if entry.record.stage == certificate.outcome), None)
    if won and certificate.running != running_of(won, certificate.wanted.requests_per_month):
        yield f"running: what requests cost is not what {certificate.outcome} was measured at"


def _data_problems(certificate: Certificate) -> Iterator[str]:
    gate = next((table for table in certificate.data if table.name == "gate"), None)
    if gate is None:
        yield "data: the gate set is missing"
    elif gate_hash(gate.sha256, gate.rows, certificate.wanted.unit_by) != certificate.gate_hash:
        yield "data.gate: its hash or its rows are not those of the gate rows that were judged"


def _date_problems(certificate: Certificate, now: datetime) -> Iterator[str]:
    if any(each.tzinfo is None for each in (certificate.measured_at, certificate.issued_at, certificate.expires_at)):
        yield "measured_at, issued_at, expires_at: have no time zone"
        return
    if certificate.measured_at > certificate.issued_at + CLOCKS_DIFFER:
        yield f"measured_at: {certificate.measured_at:%Y-%m-%d} is after it was issued"
    if certificate.expires_at != certificate.issued_at + timedelta(days=certificate.valid_days):
        yield f"expires_at: is not {certificate.valid_days} days after issued_at"
    if certificate.issued_at > now + CLOCKS_DIFFER:
        yield f"issued_at: {certificate.issued_at:%Y-%m-%d} is still to come"
    latest = (certificate.issued_at + CLOCKS_DIFFER).date()
    days = {each.uri: each.price.as_of for each in certificate.prices.models}
    for what, day in ({"the price book": certificate.prices.book_as_of} | days).items():
        if day and day > latest:
            yield f"prices: those of {what} are of {day}, after it was issued"


def _warnings(certificate: Certificate, now: datetime) -> Iterator[str]:
    if certificate.expires_at.tzinfo and now > certificate.expires_at:
        yield f"EXPIRED on {certificate.expires_at:%Y-%m-%d}: climb again for a new one"
    if certificate.measured_at.tzinfo and certificate.issued_at.tzinfo:
        before = (certificate.issued_at - certificate.measured_at).days
        if before > certificate.valid_days:
            yield (
                f"OLD EVIDENCE: the winner was measured on {certificate.measured_at:%Y-%m-%d}, {before} days before "
                f"this was issued, and it holds {certificate.valid_days}: it was issued again over what was kept"
            )
    if not certificate.sure:
        yield f"NOT SURELY: the gate was not sure of {certificate.outcome}"
    if certificate.confirmed != "yes":
        words = "does not confirm it" if certificate.confirmed == "no" else "did not measure it"
        yield f"NOT CONFIRMED: the untouched test split {words}"
    book = certificate.prices.book_as_of
    if (certificate.issued_at.date() - book).days > DAYS_UNTIL_STALE:
        yield f"prices were of {book} when it was issued, more than {DAYS_UNTIL_STALE} days before"
    if any(each.price.illustrative for each in certificate.prices.models):
        yield "prices are illustrative: nobody charges them"


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=ROUNDING, abs_tol=ROUNDING)
