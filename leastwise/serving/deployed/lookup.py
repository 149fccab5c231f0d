"""How the endpoints that run here stand to a registry: which follow its champion, which answer with a version.

It starts and ends nothing, and moves no alias.
"""

from __future__ import annotations

from leastwise.record.published.moves import CHAMPION
from leastwise.record.registry import Registry
from leastwise.serving.deployed import entries
from leastwise.serving.deployed.entries import Entry


def of_registry(registry: Registry) -> list[Entry]:
    """The endpoints that stay and run here for this use case as this registry has it: the same version may be another
    one elsewhere.
    """
    running = (entry for entry in entries.living(registry.use_case) if entry.stays)
    return [entry for entry in running if registry.run_of(entry.version) == entry.run_id]


def is_pinned(registry: Registry, entry: Entry) -> bool:
    """Whether it still answers with the version it was started for, whatever the champion is."""
    champion = registry.aliases().get(CHAMPION, "")
    return entry.pin is not None and entry.pin.holds(champion, registry.log)


def with_champion(registry: Registry) -> Entry | None:
    """An endpoint that answers with the champion, or will in a moment; None where there is none."""
    champion = registry.aliases().get(CHAMPION, "")
    running = of_registry(registry) if champion else []
    return next((each for each in running if each.version == champion or not is_pinned(registry, each)), None)


def with_version(registry: Registry, version: str) -> Entry | None:
    """An endpoint that was started for this version, or answers with it as the champion; None where there is none."""
    own = next((each for each in of_registry(registry) if each.version == version), None)
    return own or (with_champion(registry) if registry.aliases().get(CHAMPION) == version else None)
