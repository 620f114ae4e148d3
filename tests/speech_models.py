"""A speech model for tests, made on the spot: an untrained Whisper of two layers, and recordings for it."""

from __future__ import annotations

import io
import math
import struct
import wave
from pathlib import Path

CLIP_S = 2  # of audio that the model reads at once; longer recordings are cut
RATE = 16_000  # samples a second, the model's own: vLLM need not convert them
MAX_LEN = 64  # tokens of prompt and answer
_SPECIAL = ("<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>")


def whisper(folder: Path) -> Path:
    """Save it with its feature extractor and a tokenizer of single bytes. Returns the folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizerFast,
    )
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<|endoftext|>", *letters])}
    bare = Tokenizer(models.BPE(vocabulary, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    stamps = [f"<|{0.02 * number:.2f}|>" for number in range(50 * CLIP_S + 1)]
    languages = [f"<|{code}|>" for code in LANGUAGES]
    bare.add_special_tokens(
        ["<|endoftext|>", _SPECIAL[0], *languages, *_SPECIAL[1:], "<|nospeech|>", "<|notimestamps|>", *stamps]
    )
    tokenizer = WhisperTokenizerFast(tokenizer_object=bare)
    numbers = bare.get_vocab()
    torch.manual_seed(1)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=math.ceil(len(numbers) / 64) * 64,
            num_mel_bins=80,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            d_model=64,
            max_source_positions=50 * CLIP_S,
            max_target_positions=MAX_LEN,
            decoder_start_token_id=numbers[_SPECIAL[0]],
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            suppress_tokens=None,
            begin_suppress_tokens=None,
            dtype="float32",
        )
    )
    model.generation_config.update(
        lang_to_id={code: numbers[code] for code in languages}, max_length=MAX_LEN, forced_decoder_ids=None
    )
    model.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=80, sampling_rate=RATE, chunk_length=CLIP_S)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def recording(duration_s: float = 1.0, pitch_hz: float = 440.0, rate: int = RATE) -> bytes:
    """Return a tone as a WAV file of 16 bits."""
    count = round(duration_s * rate)
    tone = (round(9000 * math.sin(2 * math.pi * pitch_hz * number / rate)) for number in range(count))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(struct.pack(f"<{count}h", *tone))
    return file.getvalue()
