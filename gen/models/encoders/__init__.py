"""Encoders: inputs → `Memory`. An encoder of your own is one file: subclass `Encoder`, call `register`."""

from gen.models.encoders.base import Encoder, Prepared
from gen.models.encoders.cnn import CNNEncoder
from gen.models.encoders.joined import JoinedEncoder
from gen.models.encoders.labels import LabelEncoder
from gen.models.encoders.none import NoneEncoder
from gen.models.encoders.registry import ENCODERS, build_encoder, register
from gen.models.encoders.rnn import RNNEncoder

register("none")(NoneEncoder)
register("rnn")(RNNEncoder)
register("cnn")(CNNEncoder)
register("joined")(JoinedEncoder)
register("labels")(LabelEncoder)

__all__ = [
    "ENCODERS",
    "CNNEncoder",
    "Encoder",
    "JoinedEncoder",
    "LabelEncoder",
    "NoneEncoder",
    "Prepared",
    "RNNEncoder",
    "build_encoder",
    "register",
]
