"""When a request came is read from seconds and from dates, and what is neither is named by its row."""

from typing import Any

import pandas as pd
import pytest

from leastwise.errors import BadInput
from leastwise.stores.tables.table_times import unix_seconds


@pytest.mark.parametrize(
    "times", [[0, 60], ["1970-01-01T00:00:00Z", "1970-01-01 00:01:00"], pd.to_datetime([0, 60], unit="s")]
)
def test_times_are_read_as_seconds_or_dates(times: Any) -> None:
    assert list(unix_seconds(pd.DataFrame({"at": times}), "at", "data.traffic")) == [0.0, 60.0]


def test_what_is_no_time_is_named_by_row() -> None:
    with pytest.raises(BadInput, match=r"data\.traffic: row 2: 'at' is no time"):
        unix_seconds(pd.DataFrame({"at": ["2026-01-01", "soon"]}), "at", "data.traffic")
    with pytest.raises(BadInput, match="no column 'when'"):
        unix_seconds(pd.DataFrame({"at": [1]}), "when", "data.traffic")
