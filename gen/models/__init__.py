"""The model: encoders, memory, attention, the decoder; on disk and as ONNX graphs."""
