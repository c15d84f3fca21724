"""User input as arrays: tokenizers, pictures, input processors. Needs no torch."""

from gen.inputs import labels as labels  # adds its tokenizer to TOKENIZERS
from gen.inputs import subword as subword
