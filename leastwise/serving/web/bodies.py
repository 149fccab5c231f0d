"""The shapes of requests and answers: chat messages as OpenAI has them, tables and inputs as MLflow has them.

One text a request is what a gate measures, so one text is what is answered: what would make it another question (a
system message, a conversation, tools) is refused; what only tunes sampling is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from leastwise.serving.live import prediction_of
from leastwise.serving.settings import EndpointSettings
from leastwise.serving.traffic import Answered
from leastwise.serving.web.refusals import Refusal, dumped
from leastwise.stores.tables.table_formats import strict_json
from leastwise.text_forms import shows_nothing

Json = dict[str, object]
MESSAGES, COLUMN = "messages", "text"
MOST_WORDS = 500  # characters of a refusal: some repeat what was sent
NOT_OFFERED = ("tools", "functions", "audio", "modalities", "logprobs", "top_logprobs", "prediction")
ONE_TEXT = "This endpoint answers one text a request, with the prompt its gate measured: send one user message"


@dataclass(frozen=True)
class Chat:
    """A chat request: its text, and how it wants to be answered."""

    text: str
    model: str
    user: str
    is_streamed: bool
    tells_usage: bool


def parsed(body: bytes) -> Json:
    """A body as a JSON object; refused where it is not UTF-8, not JSON or nothing with fields."""
    try:
        body.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        raise Refusal(400, "not_utf8", f"The request is not UTF-8 (at byte {error.start}).") from None
    try:
        value = orjson.loads(body)
        strict_json(
            body
        )  # of a field that stands twice orjson takes the last, and whoever looked at it before, the first
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "not_json", f"The request is not JSON: {str(error)[:200]}.") from None
    if not isinstance(value, dict):
        raise Refusal(400, "wrong_shape", "The request is no JSON object.")
    return value


def chat_of(asked: Json, settings: EndpointSettings) -> Chat:
    """What a chat request asks."""
    for name in NOT_OFFERED:
        if asked.get(name):
            raise _wrong(f"{name} is not offered here; leave it out.", name)
    if asked.get("n") not in (None, 1):
        raise _wrong("One answer a request is given; leave n out.", "n")
    form = asked.get("response_format")
    if form is not None and not (isinstance(form, dict) and form.get("type") == "text"):
        raise _wrong("The form of an answer is the use case's own; leave response_format out.", "response_format")
    model, user, stream = (
        _given(asked, name, unsaid) for name, unsaid in (("model", ""), ("user", ""), ("stream", False))
    )
    options = asked.get("stream_options") or {}
    if not isinstance(model, str) or not isinstance(user, str) or not isinstance(options, dict):
        raise _wrong("model and user are texts, stream_options an object.", "model")
    if not isinstance(stream, bool):
        raise _wrong("stream is true or false.", "stream")
    text = _checked(_only_message(asked.get(MESSAGES)), settings, MESSAGES)
    return Chat(text, model, user, stream, bool(options.get("include_usage")))


def _given(asked: Json, name: str, unsaid: object) -> object:
    """A field's value; null is as good as nothing, as OpenAI's clients mean it."""
    value = asked.get(name)
    return unsaid if value is None else value


def texts_of(asked: Json, settings: EndpointSettings) -> list[str]:
    """The texts of an /invocations request, in MLflow's shapes: dataframe_split, dataframe_records, inputs, instances,
    and chat messages or input.
    """
    readers: dict[str, Callable[[object], list[object]]] = {
        "dataframe_split": _split_texts,
        "dataframe_records": _record_texts,
        "inputs": _input_texts,
        "instances": _input_texts,
        "input": _input_texts,
        MESSAGES: _message_texts,
    }
    names = [name for name in readers if name in asked]
    if len(names) != 1:
        raise _wrong(f"Give one of {', '.join(readers)}.", None)
    texts = readers[names[0]](asked[names[0]])
    if not texts or len(texts) > settings.most_rows:
        raise _wrong(f"Give 1 to {settings.most_rows:,} rows, not {len(texts):,}.", names[0])
    return [_checked(text, settings, f"{names[0]}, row {number}") for number, text in enumerate(texts, 1)]


def chat_answer(done: Answered, chat_id: str, name: str) -> Json:
    """An answer as OpenAI's clients read it."""
    message = {"role": "assistant", "content": done.answer.text, "refusal": None}
    choice: Json = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(done)}
    return _head(done, chat_id, name, "chat.completion") | {"choices": [choice], "usage": _usage(done)}


def chat_chunks(done: Answered, chat_id: str, name: str, tells_usage: bool) -> bytes:
    """The same as a stream of one chunk, as it is known whole, and its end."""
    head = _head(done, chat_id, name, "chat.completion.chunk")
    delta = {"role": "assistant", "content": done.answer.text}
    chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}]
    chunks += [head | {"choices": [{"index": 0, "delta": {}, "finish_reason": _finish(done)}]}]
    chunks += [head | {"choices": [], "usage": _usage(done)}] if tells_usage else []
    return b"".join(b"data: " + dumped(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def invocation_answer(answered: Sequence[Answered]) -> Json:
    """Answers as MLflow's clients read them, one a row, in the order of the rows; a row that failed says so."""
    return {"predictions": [_prediction(done) for done in answered]}


def _prediction(done: Answered) -> Json:
    held = prediction_of(done.answer, done.version)
    return held if done.status == 200 else held | {"error": "the model behind this endpoint did not answer"}


def _head(done: Answered, chat_id: str, name: str, kind: str) -> Json:
    answer = done.answer
    own = {"version": done.version, "alias": done.alias, "label": answer.label, "confidence": answer.confidence}
    fingerprint = f"{done.version}-{done.candidate}"
    head: Json = {"id": chat_id, "object": kind, "created": int(done.time), "model": name}
    return head | {"system_fingerprint": fingerprint, "leastwise": own}


def _finish(done: Answered) -> str:
    return done.answer.finish_reason if done.answer.finish_reason in ("length", "content_filter") else "stop"


def _usage(done: Answered) -> Json:
    answer = done.answer
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def _only_message(messages: object) -> object:
    """The content of the one user message."""
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise _wrong("messages must be a list of objects with role and content.", MESSAGES)
    roles = [each.get("role") for each in messages]
    if roles != ["user"]:
        raise _wrong(f"{ONE_TEXT} (these roles came: {', '.join(map(str, roles[:8]))}).", MESSAGES)
    return _content(messages[0].get("content"))


def _message_texts(messages: object) -> list[object]:
    return [_only_message(messages)]


def _content(content: object) -> object:
    """A text, or the texts of its parts one after the other."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    if not all(isinstance(part, str) for part in parts):
        raise _wrong("Only parts of type text are answered.", MESSAGES)
    return "".join(map(str, parts))


def _split_texts(given: object) -> list[object]:
    if not isinstance(given, dict) or not isinstance(given.get("data"), list):
        raise _wrong("dataframe_split must have columns and data.", "dataframe_split")
    columns, rows = given.get("columns"), given["data"]
    if not isinstance(columns, list) or not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise _wrong("Every row of dataframe_split.data must have as many cells as there are columns.", "data")
    if columns.count(COLUMN) != 1:
        raise _wrong(f"Give one column {COLUMN!r}, not {', '.join(map(str, columns[:8])) or 'none'}.", "columns")
    at = columns.index(COLUMN)
    return [row[at] for row in rows]


def _record_texts(given: object) -> list[object]:
    if not isinstance(given, list) or not all(isinstance(row, dict) and COLUMN in row for row in given):
        raise _wrong(f"dataframe_records must be a list of objects with {COLUMN!r}.", "dataframe_records")
    return [row[COLUMN] for row in given]


def _input_texts(given: object) -> list[object]:
    """A text, a list of texts or of records, or a column of texts."""
    if isinstance(given, dict) and isinstance(given.get(COLUMN), str | list):
        given = given[COLUMN]
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise _wrong(f"Give a text, a list of texts, or an object with {COLUMN!r}.", "inputs")
    return _record_texts(given) if given and isinstance(given[0], dict) else given


def _checked(text: object, settings: EndpointSettings, where: str) -> str:
    if not isinstance(text, str) or shows_nothing(text):
        raise _wrong("A text is missing, empty, or no text.", where)
    if len(text) > settings.most_text_characters:
        words = f"A text has {len(text):,} characters; at most {settings.most_text_characters:,} are answered."
        raise Refusal(400, "text_too_long", words, where)
    return text


def _wrong(message: str, where: str | None) -> Refusal:
    return Refusal(400, "wrong_shape", message[:MOST_WORDS], where)
