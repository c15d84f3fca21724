"""Subword tokenizers: SentencePiece with BPE or a unigram model (Kudo and Richardson, 2018)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence

from gen.base.errors import UserError
from gen.inputs.tokenizer import SPECIALS, TOKENIZERS, Tokenizer


class SubwordTokenizer(Tokenizer):
    """SentencePiece, BPE or unigram, with byte fallback: every text can be encoded.

    There is no normalisation and line breaks are kept, so decoding restores the text exactly (except U+2581,
    SentencePiece's symbol for a space).

    Example:
        >>> tokenizer = SubwordTokenizer.train(["low lower lowest\\n" * 9], at_most=True)
        >>> tokenizer.decode(tokenizer.encode("slow 漢"))
        'slow 漢'
    """

    kind = "subword"

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        if not model:
            raise ValueError("not a SentencePiece model")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, TypeError) as error:
            raise ValueError("not a SentencePiece model") from error
        self._model = model

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        vocab_size: int = 2000,
        at_most: bool = False,
        model_type: str = "bpe",
        byte_fallback: bool = True,
        dummy_prefix: bool = False,
        max_lines: int = 1_000_000,
    ) -> SubwordTokenizer:
        """Trains a SentencePiece model on the lines of ``texts``.

        Args:
            texts: pieces of any size. It is read again if the first ``vocab_size`` fails, so pass no iterator.
            vocab_size: the size of the vocabulary, special tokens included.
            at_most: use the largest possible size if the text does not support ``vocab_size``.
            model_type: "bpe" or "unigram".
            byte_fallback: encode unknown characters as bytes instead of `<unk>`.
            dummy_prefix: put a space before every text, so that a sentence's first word has the same pieces as
                elsewhere; decoding removes it.
            max_lines: train on a random sample of this many lines if the text has more.

        Raises:
            UserError: the text does not support ``vocab_size``; the message gives the largest possible size.
        """
        failed: list[BaseException] = []

        def lines() -> Iterator[str]:
            try:
                yield from (line for text in texts for line in text.split("\n") if line)
            except BaseException as error:
                failed.append(error)
                raise

        size = vocab_size
        while True:
            try:
                return cls(_train_model(lines(), size, model_type, byte_fallback, dummy_prefix, max_lines))
            except RuntimeError as error:
                if failed:  # SentencePiece replaces errors of the iterator with its own
                    raise failed[0] from None
                size = _supported_size(error, size, at_most)

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        return self._processor.encode(text)

    def sample(self, text: str, dropout: float) -> list[int]:
        """Encodes a text with a random segmentation, for subword regularization.

        Args:
            text: the text.
            dropout: for BPE the probability of leaving out a merge (Provilkov et al., 2020); for unigram the
                exponent of the distribution over segmentations (Kudo, 2018).
        """
        return self._processor.encode(text, enable_sampling=True, alpha=dropout, nbest_size=-1)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._processor.decode([int(i) for i in token_ids if i not in (0, 1, 2)])

    def tokens(self) -> list[str]:
        pieces = [self._processor.id_to_piece(i) for i in range(len(self))]
        return [
            "" if i < len(SPECIALS) else p.replace("\N{LOWER ONE EIGHTH BLOCK}", " ") for i, p in enumerate(pieces)
        ]

    def to_bytes(self) -> bytes:
        return self._model

    @classmethod
    def from_bytes(cls, data: bytes) -> SubwordTokenizer:
        return cls(data)


def _train_model(
    lines: Iterator[str], vocab_size: int, model_type: str, byte_fallback: bool, dummy_prefix: bool, max_lines: int
) -> bytes:
    """A serialized SentencePiece model. Raises RuntimeError if the text does not support ``vocab_size``."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        vocab_size=vocab_size,
        model_type=model_type,
        byte_fallback=byte_fallback,
        character_coverage=1.0 if not byte_fallback else 0.9995,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=dummy_prefix,
        user_defined_symbols=["\n"],
        input_sentence_size=max_lines,
        shuffle_input_sentence=True,
        max_sentence_length=1 << 20,
        pad_id=Tokenizer.pad_id,
        bos_id=Tokenizer.bos_id,
        eos_id=Tokenizer.eos_id,
        unk_id=Tokenizer.unk_id,
        num_threads=2,
        minloglevel=2,
    )
    return model.getvalue()


def _supported_size(error: RuntimeError, vocab_size: int, at_most: bool) -> int:
    """The largest vocabulary size that the text supports, from SentencePiece's error message."""
    message = str(error)
    largest, smallest = re.search(r"<= ?(\d+)", message), re.search(r"\d+ vs (\d+)", message)
    if largest and at_most:
        return int(largest[1])
    if largest:
        reason = f"is too large for this text: at most {largest[1]} pieces"
    else:
        reason = f"does not suit this text: {f'at least {smallest[1]}' if smallest else message.splitlines()[0]}"
    raise UserError(f"--vocab-size {vocab_size} {reason}") from error


def seed_sampling(seed: int = 0) -> None:
    """Seeds `SubwordTokenizer.sample`."""
    import sentencepiece

    sentencepiece.set_random_generator_seed(seed)


TOKENIZERS[SubwordTokenizer.kind] = SubwordTokenizer
