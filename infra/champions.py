"""Champions served while `make up` is up: an endpoint for every use case that has a champion and none that answers with
it, looked for every few seconds; so a first promotion is served without a command.

`python -m infra.champions` is started by `infra.local`. It ends no endpoint (`infra.local down` does), moves no alias.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import flows  # noqa: F401 - keeps every process started here quiet and its state under the state directory
from leastwise.record.client import connect, tracking_uri
from leastwise.record.climb_run import ClimbRun
from leastwise.record.published.in_production import champions_at
from leastwise.record.registry import Registry
from leastwise.redaction import redacted
from leastwise.serving.deployed import lookup, starting
from leastwise.serving.deployed.entries import Entry
from leastwise.serving.settings import EndpointSettings

EVERY_S = 5.0
LOOKED = "champions that are served"
FIRST_AGAIN_S, MOST_AGAIN_S = 5.0, 300.0  # before a champion whose endpoint ended is started once more

log = logging.getLogger("infra.champions")


@dataclass
class Champions:
    """What is looked after, and when an endpoint that ended by itself is started again (monotonic seconds)."""

    tried: dict[tuple[str, str], int] = field(default_factory=dict)
    again_at: dict[tuple[str, str], float] = field(default_factory=dict)

    def look(self) -> list[Entry]:
        """The endpoint of every champion, started where there is none; not where one ended a moment ago."""
        return list(self._every())

    def _every(self) -> Iterator[Entry]:
        client = connect()
        for name in champions_at(tracking_uri()):
            try:
                served = self._served(Registry(client, name))
            except Exception as error:  # one that cannot be served keeps nobody else's from being
                log.warning(f"{name}: {redacted(f'{type(error).__name__}: {error}')[:500]}")
                continue
            if served:
                yield served

    def _served(self, registry: Registry) -> Entry | None:
        there = lookup.with_champion(registry)
        champion = registry.aliases().get("champion", "")
        key = (registry.use_case, champion)
        if there or not champion:
            return there
        if time.monotonic() < self.again_at.get(key, 0.0):
            return None
        count = self.tried[key] = self.tried.get(key, 0) + 1
        self.again_at[key] = time.monotonic() + min(FIRST_AGAIN_S * 2 ** (count - 1), MOST_AGAIN_S)
        return starting.ensure(_wanted(registry, champion)).entry


def _wanted(registry: Registry, champion: str) -> starting.Wanted:
    """An endpoint that follows the champion, masking as the climb did that found it."""
    run = ClimbRun.read(registry.client, registry.run_of(champion) or "")
    above = ClimbRun.read(registry.client, run.parent_id) if run.parent_id else run
    return starting.Wanted(
        name=registry.use_case,
        version=champion,
        run_id=run.id,
        settings=EndpointSettings(),
        mask=above.use_case().data.mask,
    )


def main() -> int:
    """Look after them until ended; a registry that is away is asked again."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    champions, said = Champions(), ""
    while True:
        try:
            served = ", ".join(sorted(f"{each.name} at {each.url}" for each in champions.look()))
            if said != (words := f"{LOOKED}: {served or 'none'}"):
                log.info(words)
            said = words
        except Exception as error:
            words = f"the registry could not be asked: {redacted(f'{type(error).__name__}: {error}')[:500]}"
            if said != words:
                log.warning(words)
            said = words
        time.sleep(EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
