"""A process of a machine that shares its state: it pays calls, each once, and says what it got.

`python -m tests.stores.shared_worker HOME NAME CALLS CAP`: reserves 1 to 3 thousandths, four calls at once, keeps an
answer under a key of its own and settles at half; a line for each answer that is known to be durable, then one of JSON.
"""

import json
import sys
import time
from collections import deque
from pathlib import Path

from leastwise.stores.answer_store import stored_now
from leastwise.stores.caps import BudgetExceeded, Caps
from leastwise.stores.shared.state import open_state
from leastwise.use_case.price import Usage

AT_ONCE = 4


def main(home: str, name: str, calls: int, cap: float) -> None:
    state = open_state(Path(home))
    caps, in_flight, waits = Caps("climb", cap, 2 * cap), deque(), []
    settled, number, refused = [], 0, 0
    while number < calls or in_flight:
        while number < calls and len(in_flight) < AT_ONCE:
            worst = (1 + number % 3) / 1000
            in_flight.append(
                (number, worst, time.perf_counter(), state.ledger.promise_all(caps, "case", "prompt", [worst]))
            )
            number += 1
        call, worst, asked, promise = in_flight.popleft()
        try:
            (reservation,) = promise.result()
        except BudgetExceeded:
            refused += 1
            continue
        waits.append(time.perf_counter() - asked)
        state.answers.put(f"{name}-{call}", stored_now("yes", "stop", Usage(10, 0, 0, 1), 5.0), "api")
        state.ledger.settle(reservation, worst / 2)
        settled.append(call)
        if len(settled) % 20 == 0:
            state.ledger.close()
            print(len(settled), flush=True)
    state.ledger.close()
    print(json.dumps({"settled": settled, "refused": refused, "waits": waits}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
