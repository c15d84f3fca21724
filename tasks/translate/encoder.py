"""The encoder of translation: of a sentence, alone or joined with those of its further inputs."""

from __future__ import annotations

from typing import Any

from gen.datasets.pairs import Pairs
from gen.inputs.labels import LabelTokenizer
from gen.models.encoders import CNNEncoder, Encoder, JoinedEncoder, LabelEncoder, RNNEncoder
from tasks.translate.inputs import Further


def make_encoder(pairs: Pairs, further: Further, sizes: Any, *, lowercase: bool) -> Encoder:
    """An RNN encoder of sentences; with further inputs, joined with one encoder for each.

    Args:
        pairs: what it is to read.
        further: the further inputs.
        sizes: the options, with all choices made.
        lowercase: convert sentences to lower case first.
    """
    sentence = RNNEncoder.of(
        pairs.source_tokenizer,
        sizes,
        lowercase=lowercase,
        share_embeddings=sizes.tie == "all",
        max_length=pairs.max_source_length,
        multi_sentence_p90=pairs.multi_sentence_p90,
    )
    if not further.kinds:
        return sentence
    size = sentence.memory_size
    parts: dict[str, Encoder] = {"sentence": sentence}
    for name, kind in further.kinds.items():
        if kind == "image":
            parts[name] = CNNEncoder.of(sizes, size)
        elif kind == "context":
            same = {key: value for key, value in sentence.config.items() if key != "tokenizer"}
            parts[name] = RNNEncoder(sentence.tokenizer, **same)
        else:
            labels = LabelTokenizer(filter(None, further.train[name]))
            parts[name] = LabelEncoder({name: labels}, size, prompt=False)
    return JoinedEncoder(parts, size, optional=list(further.kinds))


def set_lengths(encoder: Encoder, pairs: Pairs, *, same_tokens: bool) -> None:
    """Tells an encoder that was trained on other pairs how long the sentences of these are. ``same_tokens``: it
    counted in the same tokens before, and goes on to read what was as long as that."""
    for part in encoder.encoders.values() if isinstance(encoder, JoinedEncoder) else [encoder]:
        if isinstance(part, RNNEncoder):
            longest, usual = part.lengths if same_tokens else (0, 0)
            part.set_lengths(max(longest, pairs.max_source_length), max(usual, pairs.multi_sentence_p90))
