"""What people see: the library's notes, each once, on standard error alone."""

import logging
from collections.abc import Iterator

import pytest

from tasks.session.console import NOTES_OF, show_notes


@pytest.fixture
def untouched() -> Iterator[logging.Logger]:
    """The library's logger as it is before anybody shows its notes; put back afterwards."""
    logger = logging.getLogger(NOTES_OF)
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
    yield logger
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


def test_a_note_of_the_library_is_shown_once_however_often_showing_is_asked_for(
    untouched: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    root = logging.StreamHandler()  # as a library that configures logging for itself would have left
    monkeypatch.setattr(logging.getLogger(), "handlers", [root])
    note = logging.getLogger(f"{NOTES_OF}.training.stage_weights")
    note.info("not shown: nobody asked for notes yet")
    show_notes()
    show_notes()
    note.info("fine-tuning on 12 examples")
    note.debug("not shown: no note for people")
    logging.getLogger("another.library").info("not shown: not ours")
    shown = capsys.readouterr()
    assert shown.err == "  … fine-tuning on 12 examples\n" and shown.out == ""
