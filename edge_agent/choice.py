"""Which codec the next update comes in, chosen when its training begins. Pure.

An upload should not hold the site up: it may take LONGEST_UPLOAD_S, or a quarter of the time that training takes.
"""

from collections.abc import Collection, Mapping

from fedward.codec import codec
from fedward.layout import Layout

SHARE_OF_TRAINING = 0.25
"""Of the time that the last training took: an upload of so long costs little beside it."""


def upload_bytes(codecs: Collection[str], layout: Layout) -> Mapping[str, int]:
    """What an update of this layout comes to in each codec, at most."""
    return {name: codec(name).most_bytes(layout) for name in codecs}


def upload_limit_s(upload_s: float, work_s: float | None) -> float:
    """How long an upload may take: what the hospital grants, or longer beside a long training."""
    return max(upload_s, SHARE_OF_TRAINING * (work_s or 0.0))


def choose_codec(sizes: Mapping[str, int], asked: str, bytes_s: float | None, limit_s: float) -> str:
    """The most precise codec, no more so than the one `asked` for, whose upload takes at most `limit_s`.

    `sizes` are the bytes of an update in each allowed codec, at least one; `bytes_s` is the link's rate. Where it is
    not known yet, every upload is taken to be fast enough; where none is, the smallest goes. Where only codecs more
    precise than the one asked for are allowed, the smallest of these goes. Of codecs as precise as the one asked for
    none goes in its place: how small a lossless one gets is known only afterwards.
    """
    ordered = sorted(sizes, key=lambda name: (-codec(name).bits, sizes[name]))
    suitable = [name for name in ordered if codec(name).bits <= codec(asked).bits]
    if asked in suitable:
        suitable = [name for name in suitable if name == asked or codec(name).bits < codec(asked).bits]
    smallest = min(suitable or ordered, key=lambda name: sizes[name])
    fast_enough = [name for name in suitable if bytes_s is None or sizes[name] <= bytes_s * limit_s]
    return fast_enough[0] if fast_enough else smallest
