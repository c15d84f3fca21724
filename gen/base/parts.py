"""The parts of data: what to train, to validate and to test on."""

from __future__ import annotations

from gen.base.errors import UserError

SPLITS = {
    "": "train",
    "train": "train",
    "training": "train",
    "training_set": "train",
    "train_set": "train",
    "seg_train": "train",  # of the Intel Image Classification data, as are the other two
    "restval": "train",  # Karpathy's name for the rest of COCO's validation pictures, used for training
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "validation_set": "valid",
    "val_set": "valid",
    "valid_set": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "test_set": "test",
    "seg_test": "test",
    "seg_pred": "test",
    # Data sets with a validation part call their test so (Food-11, speech corpora); a test chooses no weights.
    "evaluation": "test",
    "eval": "test",
}
"""The names of parts that files use → "train", "valid" or "test"."""


def split_of(cell: object, where: str) -> str:
    """The part that a cell names: "train", "valid" or "test". Raises `UserError`, which names ``where``, if none.

    Example:
        >>> split_of(" Dev", "line 2"), split_of(None, "line 3")
        ('valid', 'train')
    """
    name = plain(cell)
    if name not in SPLITS:
        known = ", ".join(dict.fromkeys(SPLITS.values()))
        raise UserError(f"{where} has a split {name!r}: it must be one of {known}, or a usual name of these")
    return SPLITS[name]


def plain(cell: object) -> str:
    """A cell as `SPLITS` has it: an empty one is ""."""
    return "" if cell is None else str(cell).strip().lower()
