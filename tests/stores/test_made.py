"""What was made under one name, and where a machine keeps it: fetched once, whole, checked, and let go in turn."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.stores import storage
from leastwise.stores.made import kept as keeping
from leastwise.stores.made.kept import ROOM, Kept, Room, room
from leastwise.stores.made.naming import Made, is_made, name_of_table, place_before

ROOT = Path(__file__).parents[2]
SERVER = "the server"


def thing(folder: Path, size_bytes: int = 1000, text: str = "x") -> tuple[Made, Callable[[Path], Path]]:
    """Something that was made elsewhere, of that many bytes, and what brings it."""
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(text.encode() * size_bytes)
    (folder / "proof").mkdir()
    (folder / "proof" / "logits.safetensors").write_bytes(b"y")
    made = Made("adapters", folder.name, storage.sha256(folder))
    return made, lambda to: Path(shutil.copytree(folder, to / "files"))


@pytest.fixture(autouse=True)
def _nothing_in_use(tmp_path: Path) -> Iterator[None]:
    """What this process used is let go after a test, as it is when a process ends."""
    yield
    let_go(tmp_path)


def let_go(below: Path) -> None:
    for lock in [each for each in keeping._in_use if each.is_relative_to(below)]:
        os.close(keeping._in_use.pop(lock))


def test_a_name_says_kind_key_and_digest_and_nothing_else_is_one(tmp_path: Path) -> None:
    made = Made("bases", "ab12-first-1", "0" * 64)
    assert made.uri == f"made://bases/ab12-first-1?sha256={'0' * 64}" and Made.parse(made.uri) == made
    trial = Made("adapters/trials", "ab12", "0" * 64)
    assert Made.parse(trial.uri) == trial and trial.place(tmp_path) == tmp_path / "adapters" / "trials" / "ab12"
    assert is_made(made.uri) and not is_made("file:///bases/ab12")
    state = tmp_path / "state"
    named = {str(state / "labels" / "a.parquet"): "made://labels/a.parquet"}
    named |= {str(state / "data" / "a.parquet"): "${LEASTWISE_HOME}/data/a.parquet"}
    named |= {str(tmp_path / "state-2" / "a.parquet"): str(tmp_path / "state-2" / "a.parquet"), "s3://b/a": "s3://b/a"}
    assert {path: name_of_table(path, state) for path in named} == named
    assert place_before(made.uri, tmp_path) == (tmp_path / "bases" / "ab12-first-1").as_uri()
    assert place_before("package://base", tmp_path) == "package://base"
    for wrong in (
        "bases/..",
        "bases/.hidden",
        "other/ab12",
        "bases/a/b",
        "bases/ab%2e%2e/x",
        "bases/",
        "adapters/bases/k",
    ):
        with pytest.raises(BadInput, match="names nothing that was made"):
            Made.parse(f"made://{wrong}?sha256={'0' * 64}")
    with pytest.raises(BadInput, match="names nothing"):
        Made.parse("made://bases/ab12?sha256=12")


def test_it_is_fetched_once_and_found_by_its_digest_afterwards(tmp_path: Path) -> None:
    made, fill = thing(tmp_path / "there" / "k1")
    kept, calls = Kept(tmp_path / "home"), []
    assert kept.find(made) is None
    for _ in range(3):
        place = kept.fetch(made, 1001, SERVER, lambda to: calls.append(to) or fill(to))
    assert place == tmp_path / "home" / "adapters" / "k1" and len(calls) == 1
    assert kept.find(made) == place and storage.sha256(place) == made.sha256 and kept.name("adapters", "k1") == made


def test_of_those_who_want_it_at_once_one_fetches(tmp_path: Path) -> None:
    made, fill = thing(tmp_path / "there" / "k1")
    calls: list[Path] = []

    def slowly(to: Path) -> Path:
        calls.append(to)
        time.sleep(0.3)
        return fill(to)

    places: list[Path] = []
    threads = [
        threading.Thread(target=lambda: places.append(Kept(tmp_path / "home").fetch(made, 1, SERVER, slowly)))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(calls) == 1 and len(places) == 4 and len(set(places)) == 1


def test_what_a_kill_left_half_fetched_is_none_and_is_removed(tmp_path: Path) -> None:
    made, _ = thing(tmp_path / "there" / "k1")
    home = tmp_path / "home"
    killed = """
import os, sys
from pathlib import Path
from leastwise.stores.made.kept import Kept
from leastwise.stores.made.naming import Made

def fill(to):
    (to / "files").mkdir()
    (to / "files" / "adapter_model.safetensors").write_bytes(b"x")
    os.kill(os.getpid(), 9)

Kept(Path(sys.argv[1])).fetch(Made.parse(sys.argv[2]), 1, "there", fill)
"""
    ended = subprocess.run([sys.executable, "-c", killed, str(home), made.uri], cwd=ROOT)
    assert ended.returncode == -9 and [each.name[:12] for each in (home / "adapters").iterdir()] == [".fetched-k1-"]
    made, fill = Made.parse(made.uri), lambda to: Path(shutil.copytree(tmp_path / "there" / "k1", to / "files"))
    assert Kept(home).find(made) is None
    Kept(home).fetch(made, 1, SERVER, fill)
    assert [each.name for each in (home / "adapters").iterdir()] == ["k1"]


@pytest.mark.parametrize("harm", ["changed", "missing", "added"])
def test_what_is_not_what_was_made_is_refused_and_leaves_nothing(tmp_path: Path, harm: str) -> None:
    made, fill = thing(tmp_path / "there" / "k1")
    file = tmp_path / "there" / "k1" / "proof" / "logits.safetensors"
    if harm == "changed":
        file.write_bytes(b"z")
    elif harm == "missing":
        file.unlink()
    else:
        file.with_name("more.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="is not what was made: its files were damaged or changed"):
        Kept(tmp_path / "home").fetch(made, 1, SERVER, fill)
    assert list((tmp_path / "home" / "adapters").iterdir()) == []


def test_another_thing_at_its_place_stays_and_is_not_taken_for_it(tmp_path: Path) -> None:
    made, fill = thing(tmp_path / "there" / "k1")
    here, _ = thing(tmp_path / "home" / "adapters" / "k1", text="z")
    kept = Kept(tmp_path / "home")
    place = kept.fetch(made, 1, SERVER, fill)
    assert place.parent.name == "fetched" and storage.sha256(place) == made.sha256
    assert kept.find(here) == tmp_path / "home" / "adapters" / "k1" and kept.find(made) == place


def test_a_file_that_is_changed_afterwards_is_not_taken_for_it(tmp_path: Path) -> None:
    made, fill = thing(tmp_path / "there" / "k1")
    place = Kept(tmp_path / "home").fetch(made, 1, SERVER, fill)
    (place / "adapter_model.safetensors").write_bytes(b"other")
    assert Kept(tmp_path / "home").find(made) is None
    assert Kept(tmp_path / "home").fetch(made, 1, SERVER, fill).parent.name == "fetched"


def test_what_was_used_longest_ago_goes_first_and_never_what_is_in_use_or_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOM, "0.000003")  # 3,000 bytes
    home = tmp_path / "home"
    kept, things = (
        Kept(home),
        {name: thing(tmp_path / "there" / name, text=name[1]) for name in ("k1", "k2", "k3", "k4")},
    )
    thing(home / "bases" / "own", 5000)

    def fetch(name: str) -> Path:
        made, fill = things[name]
        return kept.fetch(made, 1001, SERVER, fill)

    def there() -> set[str]:
        return {each.name for each in (home / "adapters").iterdir()}

    for at, name in enumerate(("k1", "k2")):
        os.utime(fetch(name))
        os.utime(home / "made" / f"adapters-{name}.used", (at, at))
    let_go(tmp_path)
    kept.find(things["k1"][0])  # in use again, so it is k2 that goes
    fetch("k3")
    assert there() == {"k1", "k3"}
    fetch("k4")
    assert there() == {"k1", "k3", "k4"}, "all of it is in use: there is more than the bound rather than none"
    let_go(tmp_path)
    kept.make_room(0, "another server")
    assert there() == {"k1", "k3", "k4"}, "what one server has is not to be had from another"
    kept.make_room(3000, SERVER)
    assert there() == set() and (home / "bases" / "own").exists()
    assert fetch("k1").exists(), "what went is fetched again"


def test_what_another_process_uses_stays_until_it_is_killed(tmp_path: Path) -> None:
    made, fill = thing(tmp_path / "there" / "k1")
    home = tmp_path / "home"
    place = Kept(home).fetch(made, 1001, SERVER, fill)
    let_go(tmp_path)
    using = """
import sys, time
from pathlib import Path
from leastwise.stores.made.kept import Kept
from leastwise.stores.made.naming import Made
Kept(Path(sys.argv[1])).find(Made.parse(sys.argv[2]))
print("in use", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", using, str(home), made.uri], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "in use\n"
        with pytest.raises(BadInput, match="no room for"):
            Kept(home).make_room(10**18, SERVER)
        assert place.exists()
        process.kill()
        process.wait()
    with pytest.raises(BadInput, match="LEASTWISE_HOME"):
        Kept(home).make_room(10**18, SERVER)
    assert not place.exists()


def test_a_full_disk_is_told_with_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        made, fill = thing(tmp_path / "there" / "k1", 3_000_000)
        with pytest.raises(BadInput, match=r"no room for 3 MB .* LEASTWISE_HOME"):
            Kept(disk).fetch(made, 3_000_001, SERVER, fill)
        (disk / "ballast").write_bytes(b"x" * 50_500_000)
        with pytest.raises(BadInput, match="no room for"):  # whatever the size that was told
            Kept(disk).fetch(made, -(10**9), SERVER, fill)
        assert list((disk / "adapters").iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_bound_is_a_number_of_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOM, raising=False)
    assert room() == Room()
    monkeypatch.setenv(ROOM, "12.5")
    assert room().most_bytes == 12.5e9
    for wrong in ("much", "0", "-1", "nan", "inf", "1e9"):
        monkeypatch.setenv(ROOM, wrong)
        with pytest.raises(BadInput, match=f"{ROOM}.*give gigabytes above 0"):
            room()
