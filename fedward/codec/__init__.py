"""float32 vector <-> bytes: what a model delta costs on the wire, and how exact it arrives.

Use `codec(name)`; the promises that every codec keeps are in `Codec`.
"""

from fedward.codec.blocks import Payload
from fedward.codec.registry import CODECS, Codec, check_payload, codec, decode, norm
from fedward.codec.seed import seed_of

__all__ = ["CODECS", "Codec", "Payload", "check_payload", "codec", "decode", "norm", "seed_of"]
