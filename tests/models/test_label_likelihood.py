"""Label probabilities of a two-block Llama with a real tokenizer, against its plain full-length forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch

from leastwise.errors import BadInput
from leastwise.models.causal_model import Generator
from leastwise.models.label_likelihood import begin_apart, label_probabilities

PROMPTS = [
    "Which city is it?",
    "Where?",
    "A much longer question about a city that nobody has asked before, is it not?",
]
SHARED = ["lateral-movement", "lateral-entry", "impact", "privilege-escalation"]  # the first two begin alike


@pytest.fixture(scope="module")
def generator(tiny: Path) -> Generator:
    made = Generator(tiny, threads=1)
    made.model.float()  # in bf16 padding alone moves a sum of log-likelihoods by some hundredths
    return made


def plain(generator: Generator, prompt: str, labels: list[str]) -> np.ndarray:
    """Each label after the prompt in a forward pass of its own, nothing shared, nothing padded."""
    tokenizer, nats = generator.tokenizer, []
    for label in labels:
        before, after = (
            tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, label + tokenizer.eos_token)
        )
        with torch.inference_mode():
            steps = generator.model(input_ids=torch.tensor([before + after])).logits[0].log_softmax(dim=-1)
        nats.append(sum(float(steps[len(before) - 1 + at, token]) for at, token in enumerate(after)))
    likelihood = np.exp(np.asarray(nats) - max(nats))
    return likelihood / likelihood.sum()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_labels_of_any_tokens_are_scored_as_whole_sequences(generator: Generator, batch_size: int) -> None:
    assert not begin_apart([generator.tokenizer(label).input_ids for label in SHARED])
    found = label_probabilities(generator, PROMPTS, SHARED, batch_size=batch_size)
    np.testing.assert_allclose(found, [plain(generator, prompt, SHARED) for prompt in PROMPTS], atol=2e-4)


def test_answers_and_probabilities_in_pieces_that_fit_are_those_of_the_whole(generator, monkeypatch) -> None:
    whole = label_probabilities(generator, PROMPTS, SHARED), generator.answer(PROMPTS, 4)
    monkeypatch.setattr("leastwise.models.machine._FITS", {"label probabilities": 2, "answers": 1})
    pieces = label_probabilities(generator, PROMPTS, SHARED), generator.answer(PROMPTS, 4)
    np.testing.assert_allclose(pieces[0], whole[0], atol=2e-4)
    assert pieces[1] == whole[1]
    assert label_probabilities(generator, [], SHARED).shape == (0, 4) and generator.answer([], 4) == []


def test_labels_that_begin_apart_may_stand_by_their_first_token(generator: Generator) -> None:
    apart = SHARED[1:]
    first = label_probabilities(generator, PROMPTS, apart)
    ids = [generator.tokenizer(label, add_special_tokens=False).input_ids[0] for label in apart]
    asked = generator.tokenizer(PROMPTS[0], return_tensors="pt", add_special_tokens=False).input_ids
    with torch.inference_mode():
        wanted = generator.model(input_ids=asked).logits[0, -1, ids].softmax(dim=0)
    np.testing.assert_allclose(first[0], wanted, atol=2e-4)
    whole = label_probabilities(generator, PROMPTS, apart, whole=True)
    np.testing.assert_allclose(whole[1], plain(generator, PROMPTS[1], apart), atol=2e-4)


def test_no_prompt_gives_no_row_and_a_label_given_twice_is_refused(generator: Generator) -> None:
    assert label_probabilities(generator, [], SHARED).shape == (0, 4)
    with pytest.raises(BadInput, match="1 distinct"):
        label_probabilities(generator, PROMPTS, ["impact", "impact"])
