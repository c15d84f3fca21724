"""From files to batches: token files, streams, pairs, captions, picture features."""
