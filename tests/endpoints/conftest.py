"""What tests of asking share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leastwise.stores.ledger import Ledger
from leastwise.stores.ledger_file import LedgerFile


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with LedgerFile(tmp_path / "ledger.db") as opened:
        yield opened
