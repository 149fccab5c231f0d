"""Stands in for a provider on another machine: `python -m tests.servers.labelling_server ADDRESS PORT`.

It knows the label (the last word of the text), and says it only to who shows it a worked example; else `perhaps`.
"""

import sys

from aiohttp import web

from tests.servers.web_server import chat_completion


async def answer(request: web.Request) -> web.Response:
    messages = (await request.json())["messages"]
    was_shown = any(each["role"] == "assistant" for each in messages)
    said = str(messages[-1]["content"]).split()[-1].rstrip(".") if was_shown else "perhaps"
    return chat_completion("m", said, 20, 1)


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", answer)])
    web.run_app(app, host=sys.argv[1], port=int(sys.argv[2]), print=None)
