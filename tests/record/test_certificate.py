"""A climb's certificate: written from the record, signed, held to itself without a server, falsifications found."""

import json
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evidence.measurement import Measurement
from leastwise.ladder.candidate import Candidate
from leastwise.ladder.ending import ClimbEnding
from leastwise.ladder.gate import Evaluation, judge
from leastwise.models.catalogue import Catalogue
from leastwise.record.certificate.checking import Checked, check_certificate
from leastwise.record.certificate.contents import Avoided, Certificate
from leastwise.record.certificate.signing import VARIABLE, check_key, sign
from leastwise.record.certificate.writing import prices_of
from leastwise.record.run import Figure
from leastwise.use_case import Stage
from leastwise.use_case.price import Price
from tasks.audit import audit_verdicts
from tasks.pipeline.certify import certify
from tasks.session.workspace import price_book
from tests.toys import use_case
from tests.workspaces import case_file, opened

Json = dict[str, Any]
PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "as_of": "2026-11-01"}
LIMITS = {"quality": (0.8, 0.2), "usd_per_1k_requests": (0.5, 0.1)}


def climbed(folder: Path) -> Workspace:
    """A climb whose record says: prompt fails, rag and cache are skipped, fine_tune passes."""
    labels = ["yes" if i % 3 else "no" for i in range(60)]
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(60)], "text": [f"text {i}" for i in range(60)], "label": labels})
    rows.to_parquet(folder / "gate.parquet")
    case: Json = {
        "name": "certified",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "gate.parquet"},
        "requirements": {name: {"bound": bound, "margin": margin} for name, (bound, margin) in LIMITS.items()},
        "traffic": {"requests_per_month": 30_000},
        "models": {"candidates": [{"uri": "openai:gpt-4o-mini", "price": PRICE}]},
        "allow_no_test": True,
    }
    work = opened(case_file(folder, case))
    logged(work, "prompt", quality=(0.3, 0.1, 0.5), usd_per_1k_requests=(0.1, 0.05, float("inf")))
    work.run.log_skip("rag", "data.documents: there is none")
    work.run.log_skip("cache", "nothing is worth caching")
    logged(work, "fine_tune", quality=(0.8, 0.65, 0.9), usd_per_1k_requests=(0.2, 0.1, 0.4))
    work.run.log_test({"quality": Figure(0.79, 40)})
    return work


def logged(work: Workspace, stage: Stage, **intervals: tuple[float, float, float]) -> None:
    candidate = Candidate(stage=stage, model="openai:gpt-4o-mini", venue="api")
    alphas, measurements = work.alphas, {}
    for name, (estimate, lower, upper) in intervals.items():
        bound, margin = LIMITS[name]
        measurements[name] = Measurement(
            name=name,
            estimate=estimate,
            lower=lower,
            upper=upper,
            n=50,
            bound=bound,
            margin=margin,
            alpha_pass=alphas.to_pass,
            alpha_fail=alphas.to_fail,
        )
    run = work.run.open_stage(stage, f"key-{stage}")
    run.log_candidate(candidate, work.use_case)
    evaluation = Evaluation(
        stage=stage, candidate=candidate.key, gate_hash=work.question.gate_hash, measurements=measurements
    )
    run.log_evaluation(evaluation)
    run.log_verdict(stage, judge(evaluation, work.use_case.gate_requirements), {}, "")
    run.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path) -> Iterator[Path]:
    """The certificate of a climb, as a file; its key is in the state directory of this module."""
    folder = tmp_path_factory.mktemp("certified")
    (folder / "state").mkdir()
    shutil.copy(empty_tracking, folder / "state" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", str(folder / "state"))
        for name in ("MLFLOW_TRACKING_URI", VARIABLE):
            patch.delenv(name, raising=False)
        work = climbed(folder)
        ending = ClimbEnding("fine_tune", "it does", 0.5, 7.0, 90, 10, "yes", work.run.id)
        avoided = [Avoided(stage="pretrain", expected_usd=5.0, most_usd=40.0)]
        kept = certify(work, ending, [*avoided, Avoided(stage="distill", expected_usd=2.0, most_usd=9.0)])
        logged_too = json.dumps(work.run.read_json("certificate.json"))
        assert json.loads(logged_too) == json.loads(kept.read_bytes()) and work.run.has_file("certificate.md")
        yield kept


@pytest.fixture
def content(written: Path) -> Json:
    read: Json = json.loads(written.read_bytes())
    return read


def checked(content: Json, after: timedelta = timedelta(0), signer: str = "") -> Checked:
    return check_certificate(json.dumps(content).encode(), "c.json", datetime.now(UTC) + after, signer)


def stage(content: Json, name: str) -> Json:
    ladder = content["certificate"]["ladder"]
    found: Json = next(entry["record"] for entry in ladder if entry["record"]["stage"] == name)
    return found


def test_a_certificate_says_what_was_enough_and_holds_without_any_server(
    written: Path, content: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    said = content["certificate"]
    assert [entry["record"]["stage"] for entry in said["ladder"]] == ["prompt", "rag", "cache", "fine_tune"]
    assert stage(content, "rag")["skipped"] == "data.documents: there is none"
    assert (said["outcome"], said["saving"]["expected_usd"], said["saving"]["most_usd"]) == ("fine_tune", 7.0, 49.0)
    assert said["running"]["most_usd_per_month"] == pytest.approx(12.0)
    assert said["prices"]["models"][0]["price"]["as_of"] == "2026-11-01" and said["test"]["quality"]["n"] == 40
    fingerprint = content["signature"]["fingerprint"]
    ending = audit_verdicts.fn(str(written))
    assert (ending.outcome, ending.exit_status, ending.checked) == ("agrees", 0, 2), ending.reason
    assert fingerprint in ending.reason
    assert audit_verdicts.fn(str(written), fingerprint).exit_status == 0
    assert audit_verdicts.fn(str(written), "SHA256:other").exit_status == 1


def test_a_certificate_is_shown_with_every_interval_skip_saving_and_signer(written: Path, content: Json) -> None:
    from leastwise.record.certificate.markdown import as_markdown
    from leastwise.record.certificate.signing import Signature

    certificate = Certificate.model_validate(content["certificate"])
    shown = as_markdown(certificate, Signature.model_validate(content["signature"]))
    for words in (
        "certified: fine_tune",
        f"Measured {content['certificate']['measured_at'][:10]}, issued {content['certificate']['issued_at'][:10]}",
        "| prompt | FAIL | quality | 0.300 | [0.100, 0.500] |",
        "| rag | SKIPPED | data.documents: there is none |",
        "saves $7.00 by estimate, $0.00 at least and $49.00 at most",
        content["signature"]["fingerprint"],
        content["certificate"]["data"][0]["sha256"],
    ):
        assert words in shown
    assert "NOT SIGNED" in as_markdown(certificate, None)


def test_a_base_that_nobody_priced_and_no_stage_came_to_need_keeps_no_climb_from_its_ending(tmp_path: Path) -> None:
    plain = use_case({"quality": (0.8, 0.1)})
    base = plain.models.candidates[0].model_copy(update={"uri": "file:///nobody/priced", "price": None})
    priced = plain.models.candidates[0].model_copy(update={"price": Price.model_validate(PRICE)})
    models = plain.models.model_copy(update={"candidates": (priced,), "base": base})
    catalogue = Catalogue(plain.model_copy(update={"models": models}), price_book(), tmp_path)
    assert [each.uri for each in prices_of(catalogue).models] == [priced.uri]


def at(path: str, value: Any) -> Callable[[Json], None]:
    """Write another value under a path of fields, `stage:` first for a row of the ladder."""

    def change(content: Json) -> None:
        name, colon, rest = path.partition(":")
        place: Any = stage(content, name) if colon else content["certificate"]
        *above, last = (rest if colon else path).split(".")
        for part in above:
            place = place[int(part)] if part.isdigit() else place[part]
        place[last] = value(place[last]) if callable(value) else value

    return change


def without(name: str) -> Callable[[Json], None]:
    def change(content: Json) -> None:
        ladder = content["certificate"]["ladder"]
        content["certificate"]["ladder"] = [each for each in ladder if each["record"]["stage"] != name]

    return change


def several(*changes: Callable[[Json], None]) -> Callable[[Json], None]:
    def change(content: Json) -> None:
        for each in changes:
            each(content)

    return change


def judged_again(content: Json, name: str) -> None:
    """Write the verdict that the falsified intervals give, as whoever has a key would."""
    record = stage(content, name)
    wanted = Certificate.model_validate(content["certificate"]).wanted.gate_requirements
    record["verdict"] = judge(Evaluation.model_validate(record["evaluation"]), wanted).model_dump(mode="json")


def error_below(content: Json) -> None:
    stage(content, "prompt")["evaluation"]["error"] = "the provider was away"
    judged_again(content, "prompt")


def undecided(name: str, resolution: str | None) -> Callable[[Json], None]:
    def change(content: Json) -> None:
        record = stage(content, name)
        record["evaluation"]["measurements"]["quality"] |= {"estimate": 0.85, "lower": 0.5, "upper": 0.9}
        record["resolution"] = resolution
        judged_again(content, name)

    return change


QUALITY = "evaluation.measurements.quality"
SIGNATURE_ALONE = None  # nothing else in the file says so
FALSIFICATIONS: dict[str, tuple[Callable[[Json], None], str | None]] = {
    "a figure": (at(f"fine_tune:{QUALITY}.estimate", 0.95), "fine_tune: its reasons are not those of its intervals"),
    "an interval": (at(f"prompt:{QUALITY}.upper", 0.85), "prompt: FAIL is written, the intervals give UNDECIDED"),
    "an interval turned round": (at(f"fine_tune:{QUALITY}.lower", 0.95), "ends before it begins"),
    "n": (at(f"fine_tune:{QUALITY}.n", 500), "its reasons are not those"),
    "lost rows": (at(f"fine_tune:{QUALITY}.lost", 9), "the intervals give ERROR"),
    "a bound": (at("wanted.requirements.quality.bound", 0.7), "fine_tune: PASS is written, the intervals give ERROR"),
    "a bound, in the measurements too": (
        several(
            at("wanted.requirements.quality.bound", 0.7),
            at(f"fine_tune:{QUALITY}.bound", 0.7),
            at(f"prompt:{QUALITY}.bound", 0.7),
        ),
        "fine_tune: its reasons are not those",
    ),
    "a margin": (at("wanted.requirements.quality.margin", 0.1), "the intervals give ERROR"),
    "a requirement dropped": (at("wanted.requirements.usd_per_1k_requests", None), "fine_tune: "),
    "a verdict": (at("prompt:verdict.outcome", "PASS"), "prompt: PASS is written, the intervals give FAIL"),
    "a verdict of a requirement": (at("prompt:verdict.requirements.0.outcome", "PASS"), "prompt: its reasons"),
    "a resolution": (at("prompt:resolution", "pass"), "prompt: it is FAIL, and was resolved as pass"),
    "alpha": (at("wanted.alpha", 0.1), "alpha_fail 0.025 is not 0.05"),
    "alpha of a test": (at(f"fine_tune:{QUALITY}.alpha_pass", 0.2), "alpha_pass 0.2 is not the one share"),
    "alpha of a test, a little": (at(f"fine_tune:{QUALITY}.alpha_pass", 0.011), "is not the one share"),
    "a stage dropped": (without("prompt"), "ladder: prompt, below fine_tune, is missing"),
    "a skip dropped": (without("cache"), "ladder: cache, below fine_tune, is missing"),
    "the winner dropped": (without("fine_tune"), "ladder: fine_tune is the outcome, and did not pass"),
    "a skip's reason": (at("rag:skipped", "we did not feel like it"), SIGNATURE_ALONE),
    "a skip without a reason": (at("rag:skipped", None), "rag: it is neither measured nor skipped"),
    "the outcome": (at("outcome", "prompt"), "ladder: prompt is the outcome, and did not pass"),
    "sure": (at("sure", False), "sure: False is written"),
    "the winner": (at("winner.key", "0" * 16), "winner: 0000000000000000 is not the candidate"),
    "the day of issue": (at("issued_at", "2027-11-20T12:00:00Z"), "expires_at: is not 90 days after issued_at"),
    "the day it expires": (at("expires_at", "2099-01-01T00:00:00Z"), "expires_at: is not 90 days after issued_at"),
    "how long it holds": (at("valid_days", 3650), "expires_at: is not 3650 days"),
    "the day it was measured": (at("measured_at", "2031-01-01T00:00:00Z"), "measured_at: 2031-01-01 is after it was"),
    "both days": (
        several(at("issued_at", "2031-01-01T00:00:00Z"), at("expires_at", "2031-04-01T00:00:00Z")),
        "issued_at: 2031-01-01 is still to come",
    ),
    "a day without a zone": (at("issued_at", "2026-11-20T12:00:00"), "have no time zone"),
    "the saving": (at("saving.expected_usd", 70.0), "saving.expected_usd: 70 is written, its stages give 7"),
    "the most it saves": (at("saving.most_usd", 490.0), "saving.most_usd"),
    "the least it saves": (at("saving.least_usd", 7.0), "saving.least_usd"),
    "a stage's saving": (at("saving.avoided.0.expected_usd", 50.0), "saving"),
    "a saving on what was run": (at("saving.avoided.0.stage", "prompt"), "saving: prompt was not avoided"),
    "what requests cost": (at("running.usd_per_month", 1.0), "running: what requests cost"),
    "the traffic": (at("wanted.requests_per_month", 1), "running: what requests cost"),
    "a price": (at("prices.models.0.price.input", 9.0), SIGNATURE_ALONE),
    "a price's day": (at("prices.models.0.price.as_of", "2044-01-01"), "prices: those of openai:gpt-4o-mini"),
    "the price book's day": (at("prices.book_as_of", "2044-01-01"), "prices: those of the price book"),
    "a hash of the data": (at("data.0.sha256", "0" * 64), "data.gate: its hash"),
    "the rows of the data": (at("data.0.rows", 600), "data.gate: its hash"),
    "the data dropped": (at("data", []), "data: the gate set is missing"),
    "the gate rows": (at("gate_hash", "0" * 16), "it was judged on"),
    "the confirmation": (at("test.quality.estimate", 0.1), "confirmed: yes is written, the test figures give no"),
    "confirmed": (at("confirmed", "no"), "confirmed: no is written, the test figures give yes"),
    "that it was not confirmed": (at("confirmed", "not measured"), "confirmed: not measured is written"),
    "the price of a machine": (at("prices.hosting.usd_per_month_per_machine", 9.0), SIGNATURE_ALONE),
    "what was spent": (at("usd_spent", 0.0), SIGNATURE_ALONE),
    "a saving without end": (at("saving.expected_usd", "Infinity"), "saving.expected_usd: inf is written"),
    "the least it saves, without end": (at("saving.least_usd", "Infinity"), "saving.least_usd"),
    "more rows than there are": (at(f"fine_tune:{QUALITY}.n", 500), "500 rows are behind it, and the gate set has 60"),
    "rows that hide losses": (
        several(at(f"fine_tune:{QUALITY}.rows", 10**6), at(f"fine_tune:{QUALITY}.lost", 9)),
        "1,000,000 rows are behind it",
    ),
    "an error below": (error_below, "prompt: it ended in error, and no climb goes past an error"),
    "what nobody resolved below": (undecided("prompt", None), "prompt: it is UNDECIDED, resolved as nothing"),
    "a pass by an estimate that the use case does not take": (
        several(undecided("fine_tune", "pass"), at("wanted.on_undecided", "stop"), at("sure", False)),
        "fine_tune: it counts as passed by its estimate, and on_undecided is stop",
    ),
    "two stages swapped": (
        lambda content: content["certificate"]["ladder"].insert(0, content["certificate"]["ladder"].pop()),
        "ladder: fine_tune, prompt, rag, cache is not the order of the ladder",
    ),
    "where the ladder ends": (at("wanted.last_stage", "rag"), "ladder: fine_tune is above last_stage, rag"),
    "alpha that was drawn": (at("alpha_drawn", 0.5), "alpha_drawn: 0.5 is more than alpha, 0.05"),
    "the winner's model": (at("winner.model", "openai:gpt-5"), "winner: its model openai:gpt-5 is none of those"),
    "another currency": (at("prices.models.0.price.currency", "EUR"), "currency: unknown field"),
    "a figure on the test split dropped": (
        several(at("test", lambda test: {"adherence": test["quality"]})),
        "test: quality is required, and its figure on the test split is missing",
    ),
    "a figure on the test split of no row": (
        at("test.quality.n", 0),
        "test.quality: it cannot be the figure of 0 rows",
    ),
    "how long it holds, beyond all days": (at("valid_days", 10**12), "a number in it is beyond all bounds"),
    "the day of issue, beyond all days": (
        at("issued_at", "9999-12-31T23:59:59Z"),
        "a number in it is beyond all bounds",
    ),
    "a count beyond all bounds": (at(f"prompt:{QUALITY}.n", 10**400), "a number in it is beyond all bounds"),
    "the winner's evaluation dropped": (at("fine_tune:evaluation", None), "fine_tune is the outcome, and did not pass"),
    "a version": (at("versions.python", "2.7"), SIGNATURE_ALONE),
    "a reason to end earlier": (at("ends_earlier", []), SIGNATURE_ALONE),
    "a field nobody knows": (lambda content: content["certificate"].update(also="this"), "also: unknown field"),
    "a field dropped": (lambda content: content["certificate"].pop("prices"), "prices: is missing"),
}


@pytest.mark.parametrize("name", FALSIFICATIONS)
def test_whatever_is_changed_in_a_certificate_is_found_by_its_signature_and_by_what_can_be_derived_again(
    content: Json, tmp_path: Path, name: str
) -> None:
    falsify, said = FALSIFICATIONS[name]
    signer = content["signature"]["fingerprint"]
    falsify(content)
    assert "signature: it does not hold" in " | ".join(checked(content).problems)
    content["signature"] = sign(content["certificate"], tmp_path).model_dump()  # by another's key
    problems = " | ".join(checked(content).problems)
    assert (said in problems) if said else problems == "", problems
    assert f"not of {signer}" in " | ".join(checked(content, signer=signer).problems)


def test_a_certificate_as_it_was_written_has_no_problem(content: Json) -> None:
    found = checked(content, signer=content["signature"]["fingerprint"])
    assert (found.problems, found.warnings, found.verdicts) == ((), (), 2)


def test_a_certificate_that_expired_holds_together_and_does_not_end_as_one_that_agrees(
    content: Json, written: Path, tmp_path: Path
) -> None:
    found = checked(content, after=timedelta(days=91))
    assert found.problems == () and "EXPIRED on" in " ".join(found.warnings)
    said, long_ago = content["certificate"], datetime(2026, 1, 1, tzinfo=UTC)
    said |= {"issued_at": long_ago.isoformat(), "expires_at": (long_ago + timedelta(days=90)).isoformat()}
    said["measured_at"] = long_ago.isoformat()
    said["prices"] |= {"book_as_of": "2026-01-01"}
    said["prices"]["models"][0]["price"]["as_of"] = "2026-01-01"
    content["signature"] = sign(said, written.parents[1]).model_dump()
    (tmp_path / "c.json").write_text(json.dumps(content))
    ending = audit_verdicts.fn(str(tmp_path / "c.json"))
    assert (ending.outcome, ending.exit_status) == ("expired", 1) and "EXPIRED on 2026-04-01" in ending.reason


def test_a_certificate_that_was_issued_again_over_old_evidence_says_so(content: Json, tmp_path: Path) -> None:
    assert "measured_at" in content["certificate"]
    content["certificate"]["measured_at"] = "2026-01-01T00:00:00Z"
    content["signature"] = sign(content["certificate"], tmp_path).model_dump()
    found = checked(content)
    assert found.problems == () and "OLD EVIDENCE: the winner was measured on 2026-01-01" in " ".join(found.warnings)


def test_a_certificate_without_a_signature_is_said_aloud_and_does_not_end_as_one_that_agrees(
    content: Json, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content["signature"] = None
    (tmp_path / "c.json").write_text(json.dumps(content))
    ending = audit_verdicts.fn(str(tmp_path / "c.json"))
    assert (ending.outcome, ending.exit_status) == ("unsigned", 1) and "NOT SIGNED" in ending.reason
    assert "NOT SIGNED" in capsys.readouterr().err
    assert "there is none" in " ".join(checked(content, signer="SHA256:x").problems)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": "AAAA"}, "it does not hold"),
        ({"value": "not base64!"}, "it cannot be read"),
        ({"public_key": "AAAA"}, "it cannot be read"),
        ({"fingerprint": "SHA256:somebody"}, "is not that of its key"),
    ],
)
def test_a_signature_that_is_not_one_is_found(content: Json, change: Json, said: str) -> None:
    content["signature"] |= change
    assert said in " ".join(checked(content).problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is no certificate"),
        ('{"certificate": {}, "certificate": {}, "signature": null}', "stands twice"),
        ('{"certificate": {"alpha_drawn": NaN}, "signature": null}', "NaN is no value"),
        ('{"certificate": {"format": "leastwise-certificate/9"}, "signature": null}', "format is"),
        ('{"certificate": {}, "signature": {"algorithm": "none"}}', "is no certificate"),
        (r'{"certificate": {"reason": "half \ud800 a character"}, "signature": null}', "surrogates not allowed"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_certificate_is_bad_input(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check_certificate(text.encode(), "c.json", datetime.now(UTC))


def test_a_key_is_made_once_for_its_owner_alone_whoever_asks_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with ThreadPoolExecutor(8) as pool:
        fingerprints = {each.fingerprint for each in pool.map(lambda n: sign(n, tmp_path), range(16))}
    (key,) = (tmp_path / "keys").iterdir()
    assert len(fingerprints) == 1 and stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("spoil", ["open", "missing", "no key", "another kind"])
def test_a_key_that_cannot_be_used_is_refused_at_the_start_and_leaves_the_certificate_unsigned_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    monkeypatch.delenv(VARIABLE, raising=False)
    sign({}, tmp_path)
    key = tmp_path / "keys" / "certificates.pem"
    if spoil == "open":
        key.chmod(0o644)
    elif spoil == "missing":
        key = tmp_path / "not-there.pem"
    else:
        other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key.write_bytes(b"no key" if spoil == "no key" else other)
    monkeypatch.setenv(VARIABLE, str(key))
    for use in (check_key, lambda home: sign({}, home)):
        with pytest.raises(BadInput, match=r"not-there\.pem|certificates\.pem"):
            use(tmp_path)


def test_the_key_of_a_named_file_signs_on_every_machine_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    first = sign({"a": 1.0}, tmp_path).fingerprint
    monkeypatch.setenv(VARIABLE, str(tmp_path / "keys" / "certificates.pem"))
    assert sign({"a": 2.0}, tmp_path / "another machine").fingerprint == first
    assert not (tmp_path / "another machine").exists()
