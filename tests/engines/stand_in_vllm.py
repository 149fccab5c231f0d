"""A process with vLLM's surface (arguments, environment, routes, counts, signals), for tests of what is around it.

To a chat it says which model it was asked for and what; a completion of token ids it computes with transformers, so
that what is held to transformers is compared for real ($STAND_IN_WRONG: `adapter` leaves adapters out, `tokens` loses
the first token of a chat). As vLLM does, it guards `/v1` with its key and nothing else, refuses arguments that it does
not know, ends a request whose caller has gone, and answers what it has at SIGTERM within --shutdown-timeout. What
happens is written, a line each, into the file `$STAND_IN_LOG`.
"""

import argparse
import asyncio
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("model")
    for name in ("uds", "served-model-name", "generation-config"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float16", "float32"], required=True)
    parser.add_argument("--load-format", choices=["safetensors"], required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--shutdown-timeout", type=int, required=True)
    parser.add_argument("--structured-outputs-config", type=json.loads)
    parser.add_argument("--gpu-memory-utilization", type=float)
    for name in ("enable-prompt-tokens-details", "disable-fastapi-docs", "disable-uvicorn-access-log", "enable-lora"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--max-lora-rank", type=int, choices=[1, 8, 16, 32, 64, 128, 256, 320, 512], default=16)
    parser.add_argument("--max-loras", type=int, default=1)
    parser.add_argument("--lora-modules", nargs="+", type=json.loads, default=[])
    return parser.parse_args()


def note(**what: object) -> None:
    with Path(os.environ["STAND_IN_LOG"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


class Computing:
    """The model and its adapters in transformers, loaded when first asked for."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._base, self._adapters = arguments.model, {each["name"]: each["path"] for each in arguments.lora_modules}
        self._is_wrong = os.environ.get("STAND_IN_WRONG", "")

    def tokens(self, messages: list[dict]) -> list[int]:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._base)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False).input_ids[self._is_wrong == "tokens" :]

    @functools.lru_cache(maxsize=4)  # noqa: B019 - as long as the process
    def _model(self, name: str) -> Callable:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        model = AutoModelForCausalLM.from_pretrained(self._base, dtype=torch.float32)
        if name not in self._adapters or self._is_wrong == "adapter":
            return model
        from peft import PeftModel

        return PeftModel.from_pretrained(model, self._adapters[name])

    def told(self, name: str, prompt: list[int], count: int) -> list[dict[int, float]]:
        """After each place, the likeliest tokens and the one that comes."""
        import torch

        with torch.inference_mode():
            logits = self._model(name)(input_ids=torch.tensor([prompt])).logits
        along = torch.log_softmax(logits[0].float(), dim=-1)
        told = []
        for at, row in enumerate(along):
            values, ids = row.topk(count)
            likely = dict(zip(ids.tolist(), values.tolist(), strict=True))
            comes = {prompt[at + 1]: float(row[prompt[at + 1]])} if at + 1 < len(prompt) else {}
            told.append(comes | likely)
        return told


class StandIn:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.computing, self.most_tokens = Computing(arguments), arguments.max_model_len
        self.names = [arguments.served_model_name, *(each["name"] for each in arguments.lora_modules)]
        self.running, self.done = 0, 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        body = await request.json()
        if body["model"] not in self.names:
            return web.json_response({"error": {"message": f"The model `{body['model']}` does not exist."}}, status=404)
        text = body["messages"][-1]["content"]
        self.running += 1
        try:
            return await self._answered(request, body, text)
        except asyncio.CancelledError:
            note(gone=text)
            raise
        finally:
            self.running -= 1

    async def _answered(self, request: web.Request, body: dict, text: str) -> web.StreamResponse:
        words = f"{body['model']} says {text}"
        if body.get("stream"):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for word in words.split():
                await response.write(f"data: {json.dumps({'word': word, 'at': time.monotonic()})}\n\n".encode())
                await asyncio.sleep(0.4 if "slow" in text else 0.01)
            await response.write(b"data: [DONE]\n\n")
            return response
        ids = {}
        if body.get("return_token_ids"):
            ids = {"prompt_token_ids": await asyncio.to_thread(self.computing.tokens, body["messages"])}
        await asyncio.sleep(2.0 if "slow" in text else 0.0)
        self.done += 1
        message = {"role": "assistant", "content": words}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response(
            {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
            | {"choices": [choice], "usage": usage}
            | ids
        )

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert len(body["prompt"]) + body["max_tokens"] <= self.most_tokens, "vLLM refuses what is longer"
        assert body["return_tokens_as_token_ids"] and body["prompt_logprobs"] == body["logprobs"] == 20
        told = await asyncio.to_thread(self.computing.told, body["model"], body["prompt"], body["logprobs"])
        inside = [{str(token): {"logprob": value} for token, value in each.items()} for each in told[:-1]]
        after = [{f"token_id:{token}": value for token, value in told[-1].items()}]
        choice = {"index": 0, "text": "", "logprobs": {"top_logprobs": after}, "prompt_logprobs": [None, *inside]}
        return web.json_response({"id": "1", "object": "text_completion", "choices": [choice]})

    async def metrics(self, _request: web.Request) -> web.Response:
        label = f'{{engine="0",model_name="{self.names[0]}"}}'
        counts = {"num_requests_running": self.running, "num_requests_waiting": 0}
        counts |= {"prompt_tokens_total": 3 * self.done, "generation_tokens_total": 2 * self.done}
        lines = [f"# TYPE vllm:{name} gauge\nvllm:{name}{label} {float(value)}" for name, value in counts.items()]
        return web.Response(text="\n".join(lines) + "\n")

    async def open_to_all(self, _request: web.Request) -> web.Response:
        return web.json_response({"reached": True})


def main() -> None:
    arguments = parsed()
    if arguments.model.endswith("broken"):
        print("ValueError: this model is broken")
        sys.exit(1)
    note(environment=dict(os.environ), arguments=sys.argv[1:])
    stand_in = StandIn(arguments)
    application = web.Application()
    application.router.add_post("/v1/chat/completions", stand_in.chat)
    application.router.add_post("/v1/completions", stand_in.complete)
    application.router.add_get("/metrics", stand_in.metrics)
    for route in ("/health", "/tokenize", "/adapters", "/v1/load_lora_adapter", "/invocations"):
        application.router.add_route("*", route, stand_in.open_to_all)
    web.run_app(
        application,
        path=arguments.uds,
        handler_cancellation=True,
        shutdown_timeout=arguments.shutdown_timeout,
        print=None,
    )
    note(ended=True)


if __name__ == "__main__":
    main()
