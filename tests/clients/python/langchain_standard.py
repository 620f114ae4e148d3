"""LangChain's standard tests for chat models, which pytest collects from this file."""

import os

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestChatModel(ChatModelIntegrationTests):
    """The whole suite; what only a large model can do fails on plain vLLM too."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, object]:
        return {
            "model": os.environ["CLIENT_MODEL"],
            "base_url": os.environ["CLIENT_URL"] + "/v1",
            "api_key": os.environ["CLIENT_KEY"],
            "max_tokens": 64,
            "max_retries": 0,
            "timeout": 60,
            "stream_usage": True,
        }
