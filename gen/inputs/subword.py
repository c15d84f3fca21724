"""Subword tokenizers: SentencePiece with BPE or a unigram model (Kudo and Richardson, 2018)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence

from gen.base.errors import UserError, first_line
from gen.inputs.tokenizer import SPECIALS, TOKENIZERS, Normalization, Tokenizer, normalize
from gen.inputs.words import pieces_of

_LONGEST = 4096
"""Characters of a line to train on. SentencePiece drops longer lines than it was told of in silence, and ends
the process at a word of 65,536 characters."""
_LEAST_COVERAGE = 0.98
"""The least share of a text's characters that SentencePiece lets be in the vocabulary; the others are bytes."""


class SubwordTokenizer(Tokenizer):
    """SentencePiece, BPE or unigram, with byte fallback: every text can be encoded.

    SentencePiece itself normalizes nothing and line breaks are kept, so decoding restores the (normalized) text
    exactly (except U+2581, SentencePiece's symbol for a space).

    Example:
        >>> tokenizer = SubwordTokenizer.train(["low lower lowest\\n" * 9], at_most=True)
        >>> tokenizer.decode(tokenizer.encode("slow 漢"))
        'slow 漢'
    """

    kind = "subword"

    def __init__(self, model: bytes, normalization: Normalization = "none") -> None:
        import sentencepiece

        if not model:
            raise ValueError("not a SentencePiece model")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, TypeError) as error:
            raise ValueError("not a SentencePiece model") from error
        self._model = model
        self.normalization = normalization

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
        normalization: Normalization = "nfc",
    ) -> SubwordTokenizer:
        """Trains a SentencePiece model on the lines of ``texts``; very long ones are cut at spaces.

        Args:
            texts: pieces of any size. It is read again if the first ``vocab_size`` fails, so pass no iterator.
            vocab_size: the size of the vocabulary, special tokens included.
            at_most: use the nearest possible size if the text does not support ``vocab_size``: for a script of
                thousands of characters so many more. Where that would be four times as many, its rarest characters
                are left to ``byte_fallback``.
            model_type: "bpe" or "unigram".
            byte_fallback: encode unknown characters as bytes instead of `<unk>`.
            dummy_prefix: put a space before every text, so that a sentence's first word has the same pieces as
                elsewhere; decoding removes it.
            max_lines: train on a random sample of this many lines if the text has more.
            normalization: the Unicode normalization form.

        Raises:
            UserError: the text does not support ``vocab_size``; the message gives the nearest possible size.
        """
        failed: list[BaseException] = []

        def lines() -> Iterator[str]:
            try:
                for text in texts:
                    for line in normalize(text, normalization).split("\n"):
                        yield from pieces_of(line, _LONGEST) if line else ()
            except GeneratorExit:  # SentencePiece has read enough
                raise
            except BaseException as error:
                failed.append(error)
                raise

        size, coverage = vocab_size, 0.9995 if byte_fallback else 1.0
        for _ in range(5):
            try:
                model = _train_model(lines(), size, coverage, model_type, byte_fallback, dummy_prefix, max_lines)
                return cls(model, normalization)
            except RuntimeError as error:
                if failed:  # SentencePiece replaces errors of the iterator with its own
                    raise failed[0] from None
                smallest, largest = _supported_sizes(error)
                if not at_most:
                    raise UserError(_unsupported(size, smallest, largest, str(error))) from error
                if largest:
                    size = largest
                elif smallest and smallest > 3 * vocab_size and byte_fallback and coverage > _LEAST_COVERAGE:
                    coverage = _LEAST_COVERAGE
                elif smallest:
                    size = smallest + vocab_size
                else:
                    raise UserError(f"no subwords can be made of this text: {first_line(error)}") from error
        raise UserError(
            "no vocabulary of subwords suits this text: name one with --vocab-size, or use --level char"
        )

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, text: str, *, strict: bool = False) -> list[int]:
        return self._processor.encode(self.normalize(text))

    def sample(self, text: str, dropout: float) -> list[int]:
        """Encodes a text with a random segmentation, for subword regularization.

        Args:
            text: the text.
            dropout: for BPE the probability of leaving out a merge (Provilkov et al., 2020); for unigram the
                exponent of the distribution over segmentations (Kudo, 2018).
        """
        return self._processor.encode(self.normalize(text), enable_sampling=True, alpha=dropout, nbest_size=-1)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._processor.decode([int(i) for i in token_ids if i not in (0, 1, 2)])

    def tokens(self) -> list[str]:
        pieces = [self._processor.id_to_piece(i) for i in range(len(self))]
        return [
            "" if i < len(SPECIALS) else p.replace("\N{LOWER ONE EIGHTH BLOCK}", " ") for i, p in enumerate(pieces)
        ]

    def to_bytes(self) -> bytes:
        return self._model + _MARKS[self.normalization]

    @classmethod
    def from_bytes(cls, data: bytes) -> SubwordTokenizer:
        form = next(form for form, mark in reversed(_MARKS.items()) if data.endswith(mark))
        return cls(data.removesuffix(_MARKS[form]), form)


# Written after the model as one of the extensions that its format allows, so that SentencePiece can still read it:
# field 200, with the form's name.
_MARKS: dict[Normalization, bytes] = {"none": b"", "nfc": b"\xc2\x0c\x03nfc", "nfkc": b"\xc2\x0c\x04nfkc"}


def _train_model(
    lines: Iterator[str],
    vocab_size: int,
    coverage: float,
    model_type: str,
    byte_fallback: bool,
    dummy_prefix: bool,
    max_lines: int,
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
        character_coverage=coverage,
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


def _supported_sizes(error: RuntimeError) -> tuple[int | None, int | None]:
    """The smallest or the largest vocabulary size that the text supports, from SentencePiece's error message."""
    smallest, largest = (re.search(bound, str(error)) for bound in (r"\d+ vs (\d+)", r"<= ?(\d+)"))
    return int(smallest[1]) if smallest else None, int(largest[1]) if largest else None


def _unsupported(size: int, smallest: int | None, largest: int | None, message: str) -> str:
    if largest:
        return f"--vocab-size {size} is too large for this text: at most {largest} pieces"
    if smallest:
        return (
            f"--vocab-size {size} does not suit this text: at least {smallest}, for its characters; without the "
            "option a size is chosen"
        )
    return f"--vocab-size {size} does not suit this text: {message.splitlines()[0]}"


def seed_sampling(seed: int = 0) -> None:
    """Seeds `SubwordTokenizer.sample`."""
    import sentencepiece

    sentencepiece.set_random_generator_seed(seed)


TOKENIZERS[SubwordTokenizer.kind] = SubwordTokenizer
