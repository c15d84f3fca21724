"""User input as arrays: tokenizers, pictures, input processors. Needs no torch."""

from gen.inputs import subword as subword  # adds its tokenizer to TOKENIZERS
