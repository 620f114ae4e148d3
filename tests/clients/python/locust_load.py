"""Users of locust, half of whom stream."""

import os

from locust import HttpUser, constant, task

MODEL = os.environ["CLIENT_MODEL"]


class Chatting(HttpUser):
    """One user."""

    wait_time = constant(0.1)

    @task
    def chat(self) -> None:
        self._ask(stream=False)

    @task
    def stream(self) -> None:
        self._ask(stream=True)

    def _ask(self, *, stream: bool) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
        headers = {"authorization": f"Bearer {os.environ['CLIENT_KEY']}"}
        path = "/v1/chat/completions"
        name = "stream" if stream else "chat"
        with self.client.post(
            path, json=body | {"stream": stream}, headers=headers, name=name, catch_response=True
        ) as answer:
            if stream and not answer.text.endswith("data: [DONE]\n\n"):
                answer.failure("the stream did not end")
