"""What people bring, as arrays: tokenizers, pictures, input processors. Knows no torch."""
