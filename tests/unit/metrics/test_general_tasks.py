"""General tasks are made from plain text alone: deterministic, fair in length, never from text that is replayed."""

import random

import pytest

from leastwise.metrics.general_tasks import CHOICES, GeneralTask, accuracy_choice, is_held, tasks_of

TEXT = "the old pump in the north hall was mended twice before anyone thought of asking why its valve kept sticking"
WORDS = TEXT.split()


def texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.sample(WORDS, rng.randrange(16, 20))) + f" {seed}-{n}." for n in range(count)]


def test_one_text_in_five_is_held_and_which_depends_on_the_text_alone() -> None:
    many = texts(2000)
    held = [text for text in many if is_held(text)]
    assert 0.17 < len(held) / len(many) < 0.23
    assert [text for text in reversed(many) if is_held(text)] == held[::-1]


def test_a_task_offers_the_true_continuation_among_three_real_ones_of_about_its_length() -> None:
    made = texts(60)
    for task in tasks_of(made, 40):
        assert len(set(task.choices)) == CHOICES and task.label in task.choices
        assert task.text + task.label in made
        assert all(any(text.endswith(choice) for text in made) for choice in task.choices)
        assert max(abs(len(choice) - len(task.label)) for choice in task.choices) <= 0.35 * len(task.label)


def test_the_same_texts_give_the_same_tasks_in_any_order_and_fewer_are_the_first_of_more() -> None:
    made = texts(50)
    tasks = tasks_of(made, 30)
    assert tasks == tasks_of(made[::-1] + made, 30) and tasks[:10] == tasks_of(made, 10)
    assert len({task.id for task in tasks}) == 30


def test_the_right_choice_stands_in_every_place_about_equally_often() -> None:
    places = [task.choices.index(task.label) for task in tasks_of(texts(400), 400)]
    assert all(60 < places.count(place) < 140 for place in range(CHOICES))


def test_short_texts_and_too_few_give_no_task() -> None:
    assert tasks_of(["too short to be cut"] * 9, 10) == []
    assert tasks_of(texts(CHOICES - 1), 10) == []
    assert len(tasks_of(texts(CHOICES), 10)) == CHOICES


@pytest.mark.parametrize(
    ("scores", "choices", "chosen"),
    [
        ((-10.0, -12.0), ("ab", "abcd"), 1),  # likelier a byte, though longer and less likely in all
        ((-10.0, -9.0), ("abcd", "ab"), 0),
        ((-4.0, -6.0), ("ab", "äb"), 0),  # bytes, not letters: -2 a byte each, the first among equals
    ],
)
def test_the_likeliest_choice_a_byte_is_taken(scores: tuple[float, ...], choices: tuple[str, ...], chosen: int) -> None:
    assert accuracy_choice(scores, choices) == chosen


def test_a_task_needs_something_to_choose_from() -> None:
    with pytest.raises(ValueError, match="choices"):
        GeneralTask(id="1", text="a", choices=("b",), label="b")
