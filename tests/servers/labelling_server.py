"""Stands in for a provider on another machine: `python -m tests.servers.labelling_server ADDRESS PORT`.

It knows the label (the last word of the text), and says it only to who shows it a worked example; else `perhaps`. What
it is asked it prints, a line a call, as a digest. The model `slow` takes SLOW_S for an answer.
"""

import asyncio
import hashlib
import json
import sys

from aiohttp import web

from tests.servers.web_server import chat_completion

SLOW_S = 0.5


async def answer(request: web.Request) -> web.Response:
    asked = await request.json()
    print(f"asked {hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()}", flush=True)
    if asked["model"] == "slow":
        await asyncio.sleep(SLOW_S)
    messages = asked["messages"]
    was_shown = any(each["role"] == "assistant" for each in messages)
    said = str(messages[-1]["content"]).split()[-1].rstrip(".") if was_shown else "perhaps"
    return chat_completion("m", said, 20, 1)


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", answer)])
    web.run_app(app, host=sys.argv[1], port=int(sys.argv[2]), print=None)
