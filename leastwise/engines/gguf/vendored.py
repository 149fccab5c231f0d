"""The child process that runs one of llama.cpp's own scripts as it is; started by `conversion.py`, not by hand.

The scripts and their `gguf` package are a copy under `leastwise/vendored/llama.cpp`, newer than the `gguf` of the
environment: only in this process do they come first. Nothing of them is imported elsewhere.
"""

import json
import os
import runpy
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "vendored" / "llama.cpp"
PRE_TOKENIZER_VARIABLE = "LEASTWISE_PRE_TOKENIZER"


def _name_tokenizers_by_their_steps() -> None:
    """A tokenizer of a known make with a vocabulary of its own is in no list of hashes: then the name that the steps of
    its file have is taken. That the tokens are the same is compared afterwards.
    """
    from conversion import TextModel  # type: ignore[import-not-found]  # vendored, on this process's path alone

    known, named = TextModel.get_vocab_base_pre, os.environ.get(PRE_TOKENIZER_VARIABLE)

    def by_hash_or_steps(self: object, tokenizer: object) -> str:
        try:
            return str(known(self, tokenizer))
        except NotImplementedError:
            if not named:
                raise
            return named

    TextModel.get_vocab_base_pre = by_hash_or_steps


def _look_for_pieces_first() -> None:
    """They import sentencepiece before they look whether there is a file for it, and it may be missing."""
    from conversion import TextModel

    read = TextModel._create_vocab_sentencepiece

    def if_there(self: TextModel) -> object:
        if not (self.dir_model / "tokenizer.model").is_file():
            raise FileNotFoundError(self.dir_model / "tokenizer.model")
        return read(self)

    TextModel._create_vocab_sentencepiece = if_there


def main() -> None:
    """Run each script with its arguments, as the first argument lists them in JSON."""
    sys.path.insert(0, str(SCRIPTS))
    _look_for_pieces_first()
    _name_tokenizers_by_their_steps()
    for script, *arguments in json.loads(sys.argv[1]):
        sys.argv = [str(SCRIPTS / script), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
