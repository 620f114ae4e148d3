"""The demo's tokenizer, a byte-level BPE trained on the demo's text, and its chat template.

It knows every byte, so it takes any prompt, but only the demo's own words are short in tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"

# Every turn is its role, its text and EOS; the last role alone asks the model for its turn.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def voice(index: int) -> str:
    """Return the reserved token that makes the base model, while it learns, speak as adapter `index`."""
    return f"<|voice-{index}|>"


def learn(text: Iterable[str], *, voices: int, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of at most `vocab_size` tokens, for prompts of at most `max_length` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    reserved = [SYSTEM, USER, ASSISTANT, *(voice(index) for index in range(voices))]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD, *reserved],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    # Plain completions begin with BOS as chats do.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=reserved,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return the tokens of `text`, with nothing added."""
    # The wrapper's own call costs ten times as much, noticeable when every step draws a lesson.
    return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
