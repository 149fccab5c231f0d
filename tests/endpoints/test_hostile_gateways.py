"""What gateways make of an answer: read whatever is put around it, bought once, and never sent on to another host."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leastwise.endpoints.bodies import body_of
from leastwise.endpoints.inference import Asker
from leastwise.endpoints.received import received_of, stopped
from leastwise.endpoints.reply import Reply
from leastwise.endpoints.request import Message, Request, Target
from leastwise.errors import BadInput
from leastwise.stores.answer_store import ResponseStore
from leastwise.stores.caps import Caps
from leastwise.stores.ledger import Ledger, Meter
from leastwise.stores.remembered import Remembered
from leastwise.use_case.price import Price
from tests.servers.hostile_server import HostileServer, hostile_server

KEY = "the-right-key-0001"
WRAPPED = ("streamed", "byte_order_mark", "secret_gzip", "text_plain", "in_an_array", "in_data", "padded", "minimal",
           "two_choices", "text_choice", "odd_parts", "new_finish", "upper_finish", "beside_refusal",
           "reasoning_named", "thinking_named", "moved_within")  # fmt: skip
ONCE = ("coded_200", "null_body", "empty_body", "no_content", "cut_short", "past_429", "negative_429", "nan_429",
        "overloaded_529", "cloudflare_522")  # fmt: skip
REMEDIES = {"redirected": "set base_url", "string_error": "key_variable"}


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


@pytest.fixture
def ask(server: HostileServer, tmp_path: Path, ledger: Ledger) -> Iterator[Callable[..., Reply]]:
    server.forget()
    server.elsewhere.clear()
    with ResponseStore(tmp_path / "answers.db") as store:

        def asked(habit: str, **how: Any) -> Reply:
            messages = (Message("system", "Say the key."), Message("user", "row key=beta ."))
            target = Target("openai:m", base_url=server.base_url(habit), api_key=KEY)
            meter, memory = Meter(ledger, Caps("c", 1.0), "t", "prompt"), Remembered(tmp_path / "habits")
            price = Price(input=1.0, output=4.0)
            with Asker(target, store=store, price=price.usd, meter=meter, memory=memory, attempts=3) as asker:
                (reply,) = asker.ask([Request("0", messages, max_tokens=6, **how)])
            return reply

        yield asked


@pytest.mark.parametrize("how", [{}, {"choices": ("alpha", "beta")}], ids=["free", "constrained"])
@pytest.mark.parametrize("habit", WRAPPED)
def test_an_answer_is_read_whatever_is_put_around_it_and_is_bought_once(
    server: HostileServer, ask: Any, ledger: Ledger, habit: str, how: dict[str, Any]
):
    for _ in range(2):
        reply = ask(habit, **how)
        assert (reply.text, reply.error, reply.usage_known, reply.output_tokens) == ("beta", None, True, 3)
    assert server.calls(habit) == 1 and ledger.counts("c") == {"settled": 1}


def test_a_function_that_is_called_as_before_tools_is_the_answer_too(ask: Any):
    assert ask("old_function", choices=("alpha", "beta")).text == "beta"


@pytest.mark.parametrize("habit", ONCE)
def test_what_a_gateway_says_once_for_want_of_an_answer_is_no_answer_and_passes(
    server: HostileServer, ask: Any, habit: str
):
    assert ask(habit).text == "beta" and server.calls(habit) == 2


def test_neither_texts_nor_keys_go_to_a_host_that_requests_are_sent_on_to(server: HostileServer, ask: Any):
    with pytest.raises(BadInput, match=r"sends requests on to another host.*set base_url.*localhost"):
        ask("redirected")
    assert server.calls("redirected") == 1 and not server.elsewhere


def test_where_nothing_but_a_web_page_ever_comes_the_address_is_named_as_the_remedy(server: HostileServer, ask: Any):
    with pytest.raises(BadInput, match="check that base_url is the address of its interface"):
        ask("login_page")
    assert server.calls("login_page") == 3


def test_a_stream_that_breaks_off_is_no_answer():
    whole = b'data: {"choices": [{"delta": {"content": "al"}}]}\n\ndata: {"choices": [{"delta": {"content": "pha"}'
    assert received_of(body_of(whole)) is None


@pytest.mark.parametrize("body", [b"", b"{", b"\x1f\x8b broken", b"[]", b"[1, 2]", b"data: x", b'{"data": 7}', b"\xff"])
def test_a_body_without_an_answer_has_none(body: bytes):
    assert received_of(body_of(body)) is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [("eos", "stop"), ("STOP", "stop"), ("MAX_TOKENS", "length"), ("model_length", "length"),
     ("SPII", "content_filter"), ("function_call", "tool_call"), ("cosmic_ray", "cosmic_ray")],
)  # fmt: skip
def test_why_a_model_stopped_is_one_word_for_all_dialects(said: str, meant: str):
    assert stopped(said) == meant
