"""The child process that runs one of llama.cpp's own scripts as it is; started by `conversion.py`, not by hand.

The scripts and their `gguf` package are a copy under `leastwise/vendored/llama.cpp`, newer than the `gguf` of the
environment: only in this process do they come first. Nothing of them is imported elsewhere.
"""

import json
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "vendored" / "llama.cpp"
PRE_TOKENIZER_VARIABLE = "LEASTWISE_PRE_TOKENIZER"
CONTROL, USER_DEFINED, SPACE = 3, 4, "\N{LOWER ONE EIGHTH BLOCK}"  # as sentencepiece and GGUF number kinds of tokens


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


def _read_pieces_as_transformers_does() -> None:
    """They import sentencepiece before they look whether there is a file for it, and it may be missing; and a mark of
    the chat template that only `tokenizer.json` lists would be cut into letters.
    """
    from conversion import TextModel

    read = TextModel._create_vocab_sentencepiece

    def if_there(self: TextModel) -> object:
        if not (self.dir_model / "tokenizer.model").is_file():
            raise FileNotFoundError(self.dir_model / "tokenizer.model")
        tokens, scores, kinds = read(self)
        for token_id, token, is_special in _added_tokens(self.dir_model):
            if token_id < len(tokens):
                tokens[token_id] = (token if is_special else token.replace(SPACE, " ")).encode()
                kinds[token_id] = CONTROL if is_special or self.does_token_look_special(token) else USER_DEFINED
        return tokens, scores, kinds

    TextModel._create_vocab_sentencepiece = if_there


def _added_tokens(model_dir: Path) -> Iterator[tuple[int, str, bool]]:
    """The tokens that are found before text is cut into pieces, with whether they are special, where the file that the
    scripts look into does not list them: transformers 5 writes them into `tokenizer.json` alone.
    """
    said, made = model_dir / "tokenizer_config.json", model_dir / "tokenizer.json"
    if not made.is_file() or (said.is_file() and "added_tokens_decoder" in json.loads(said.read_bytes())):
        return
    for each in json.loads(made.read_bytes()).get("added_tokens", []):
        yield each["id"], each["content"], each["special"]


def main() -> None:
    """Run each script with its arguments, as the first argument lists them in JSON."""
    sys.path.insert(0, str(SCRIPTS))
    _read_pieces_as_transformers_does()
    _name_tokenizers_by_their_steps()
    for script, *arguments in json.loads(sys.argv[1]):
        sys.argv = [str(SCRIPTS / script), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
