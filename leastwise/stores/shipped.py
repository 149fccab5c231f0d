"""Where the files lie that ship with Leastwise beside its code: saved use cases, expectation suites, two books.

It reads none of them, and the state of a machine is not there (see `leastwise.stores.storage.home`).
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USE_CASES = ROOT / "use_cases"
EXPECTATIONS = ROOT / "expectations"
PRICE_BOOK = ROOT / "infra" / "prices.yaml"
MODEL_BOOK = ROOT / "infra" / "models.yaml"
