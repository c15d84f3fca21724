"""Figures from summed losses."""

from __future__ import annotations

import math


def language_metrics(loss_sum: float, num_tokens: int, num_characters: int) -> dict[str, float]:
    """What a summed cross-entropy says about a text.

    Args:
        loss_sum: nats over the whole text.
        num_tokens: how many were predicted.
        num_characters: the text's length, so that vocabularies of different kinds compare.

    Returns:
        loss: nats a token. bits_per_char: log2-loss over characters. perplexity: a token, e^loss.

    Example:
        >>> language_metrics(loss_sum=140.0, num_tokens=100, num_characters=100)["loss"]
        1.4
    """
    loss = loss_sum / max(num_tokens, 1)
    return {
        "loss": loss,
        "bits_per_char": loss_sum / max(num_characters, 1) / math.log(2),
        "perplexity": math.exp(min(loss, 700.0)),
    }
