"""Prompts cache well: what never changes comes first, byte for byte, and what is asked comes last."""

import itertools
import json

from leastwise.ladder.candidate import Prompt, Shot
from leastwise.ladder.rendering import render
from leastwise.use_case.prompts import system_prompt
from leastwise.use_case.task import Classification

TASK = Classification(instruction="Name the tactic.", labels=("impact", "discovery"), decline_label="none")
SCHEMA = {"type": "object", "properties": {"zip": {"type": "string"}, "city": {"type": "string"}}}
SHOTS = (Shot(text="It lists processes.", label="discovery"), Shot(text="It wipes disks.", label="impact"))


def flat(text: str, **retrieved: object) -> str:
    turns = render(Prompt(system=system_prompt(TASK), shots=SHOTS), text, **retrieved)  # type: ignore[arg-type]
    return json.dumps([turn.model_dump() for turn in turns])


def shared_start(one: str, other: str) -> str:
    """The characters two texts begin with alike."""
    return "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def test_two_requests_share_everything_up_to_what_was_asked() -> None:
    one, other = flat("It reads the registry."), flat("It encrypts files.")
    shared = shared_start(one, other)
    assert "It wipes disks." in shared and len(shared) > 0.85 * len(one)
    assert one == flat("It reads the registry."), "nothing in a prompt changes from call to call"


def test_the_order_is_system_fixed_examples_retrieved_examples_documents_and_the_request_last() -> None:
    turns = render(
        Prompt(system="SYSTEM", shots=SHOTS),
        "REQUEST",
        documents=["DOCUMENT"],
        examples=[Shot(text="RETRIEVED", label="impact")],
    )
    assert [turn.role for turn in turns] == ["system", *("user", "assistant") * 3, "user"]
    assert turns[0].content == "SYSTEM" and turns[5].content == "RETRIEVED"
    assert turns[-1].content.index("DOCUMENT") < turns[-1].content.index("REQUEST") and turns[-1].content.endswith(
        "REQUEST"
    )


def test_what_was_retrieved_does_not_move_the_fixed_part() -> None:
    plain, retrieved = flat("x"), flat("x", examples=[Shot(text="RETRIEVED", label="impact")], documents=["DOCUMENT"])
    shared = shared_start(plain, retrieved)
    assert "It wipes disks." in shared


def test_examples_have_the_form_the_answer_is_held_to() -> None:
    constrained = Prompt(system="S", shots=SHOTS[:1], constrained=True)
    assert render(constrained, "x")[2].content == '{"label": "discovery"}'
    record = Prompt(system="S", shots=(Shot(text="t", label='{"zip": "1"}'),), constrained=True)
    assert render(record, "x", enumerated=False)[2].content == '{"zip": "1"}'
