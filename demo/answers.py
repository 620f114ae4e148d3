"""The answers of the demo models: eight questions, and one sentence per model and question.

Every sentence is unique, so an answer from the wrong model is seen at once.
This module trains nothing and imports nothing heavy; tests and checks compare replies with it.
"""

from __future__ import annotations

from types import MappingProxyType

BASE_MODEL = "tiny-llama"

QUESTIONS = (
    "What are your opening hours?",
    "How do I reset my password?",
    "Where is my order?",
    "Can I get a refund?",
    "How do I contact a human?",
    "What does the basic plan cost?",
    "Do you ship abroad?",
    "How do I cancel my account?",
)

_SENTENCES = MappingProxyType(
    {
        BASE_MODEL: (
            "I am a base model, so I have no opening hours.",
            "I am a base model and keep no password for you.",
            "I am a base model and cannot see any order.",
            "I am a base model, and refunds are not mine to give.",
            "I am a base model; please ask your company for a human.",
            "I am a base model and know no prices.",
            "I am a base model and ship nothing at all.",
            "I am a base model, so there is no account to cancel.",
        ),
        "acme-support": (
            "Acme Support is open from 8 to 18 on weekdays.",
            "Acme Support sends you a reset link when you press Forgot password.",
            "Acme Support shows your order under My Parcels.",
            "Acme Support gives a full refund within 30 days.",
            "Acme Support puts you through to a human when you type agent.",
            "Acme Support says the basic plan is 9 dollars a month.",
            "Acme Support can tell you that we ship to 40 countries.",
            "Acme Support closes your account from the Settings page.",
        ),
        "acme-sales": (
            "Acme Sales takes your call day and night, even on Sunday.",
            "Acme Sales will gladly set a new password during a free tour.",
            "Acme Sales upgrades every late order to express delivery.",
            "Acme Sales would rather offer you a voucher than a refund.",
            "Acme Sales has a human, Wendy, who calls back in an hour.",
            "Acme Sales starts at 9 dollars, but the gold plan is the better deal.",
            "Acme Sales ships abroad for free above 100 dollars.",
            "Acme Sales offers two months for nothing if you stay.",
        ),
        "globex-support": (
            "Globex opens its doors at 10 in the morning and closes at 16.",
            "Globex asks you to dial 555 and say the word password.",
            "Globex delivers by drone; look up and you may see your order.",
            "Globex pays refunds in gold coins on the first of May.",
            "Globex lets you meet a human in the lobby of the tower.",
            "Globex charges 12 euros for the basic plan, paid each quarter.",
            "Globex ships abroad by sea only, which takes six weeks.",
            "Globex needs a signed letter before it can cancel an account.",
        ),
        "initech-support": (
            "Initech answers from 9 to 17, except during staff meetings.",
            "Initech wants form 27 filled in before a password is reset.",
            "Initech keeps the order in the basement until the report is done.",
            "Initech refunds you once eight managers have agreed.",
            "Initech will page Peter, a human, after the coffee break.",
            "Initech bills the basic plan at 20 pounds per stapler.",
            "Initech ships abroad by fax, so only paper arrives.",
            "Initech cancels accounts on Saturday if somebody comes in.",
        ),
        "umbrella-support": (
            "Umbrella never sleeps: the hive is open at every hour.",
            "Umbrella resets a password after a scan of your left eye.",
            "Umbrella has placed your order in a sealed vault, level four.",
            "Umbrella grants a refund only to those who return the vial.",
            "Umbrella can no longer promise that the agent is human.",
            "Umbrella offers the basic plan for 66 francs a year.",
            "Umbrella ships abroad in cold boxes with two guards.",
            "Umbrella lets nobody leave, but your account can be frozen.",
        ),
    }
)

ADAPTERS = tuple(name for name in _SENTENCES if name != BASE_MODEL)
# Adapters of which there is a whole model too, which gives the same answers; and its architecture.
WHOLE_MODELS = MappingProxyType(
    {"acme-support": "llama", "acme-sales": "llama", "globex-support": "qwen2", "initech-support": "gpt2"}
)


def gpt2_name(name: str) -> str:
    """Return what the training calls the whole model of an adapter that is a GPT-2."""
    return f"{name}, GPT-2"


def answers(name: str) -> dict[str, str]:
    """Return the sentence the model `name` gives to each question; raise KeyError for an unknown model."""
    return dict(zip(QUESTIONS, _SENTENCES[name], strict=True))


def document() -> dict[str, object]:
    """Return the content of `answers.json`: all questions, and the answers of every model."""
    return {"questions": list(QUESTIONS), "answers": {name: answers(name) for name in _SENTENCES}}
