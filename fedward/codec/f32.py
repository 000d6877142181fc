"""f32: no compression. 32 bits a parameter, x^ = x bit for bit (`test_f32_brings_back_every_bit`)."""

from fedward.codec.blocks import EXACT, BlockCodec

F32 = BlockCodec("f32", bits=32, deterministic=True, carries_updates=True, quantizer=EXACT, exact=True)
