"""When a download asks for which chunks: pure, with the time as an argument.

**The rule.** A part is asked for whole once. Silence after that means a slow link or a loss, and nobody can tell
which; so silence asks for a single chunk, the last one that is missing: the *probe*. Chunks queue in the order of
their indices, so while anything is on its way the probe's chunk is the end of it. Only when that chunk has come and
there is silence again was the rest lost: whoever answers is there, and is asked for all that is missing.

**What it costs.** A slow link carries the model once, and a chunk a probe. How long silence lasts follows the pace of
the link: GAPS of the longest recent gaps between chunks. Before the first chunk of the process no pace is known. The
first wait is then so long that at most a tenth of the chunks is asked for twice on a link that takes SLOWEST_CHUNK_S
for one: the model costs at most 1.1 times its bytes. Fewer than ten chunks have no tenth to spare: the first probe
waits until one chunk has had its time on such a link.

**What heals when.** A new link, a coordinator that is new or announces again what is fetched already: the probe
leaves at once. Otherwise it leaves after the silence. A lost rest is asked for two silences after the last chunk.
"""

from collections.abc import Callable, Collection, Mapping

from fedward.chunks import num_chunks
from fedward.limits import CHUNK_BYTES
from fedward.messages import Manifest, Range

ASK_AGAIN_S = 4.0
"""Seconds of silence after which a probe leaves, at least; doubles up to LONGEST_ASK_S while nothing comes."""

LONGEST_ASK_S = 60.0
"""Exceeded only where the pace of the link asks for longer waits."""

GAPS = 3
"""Gaps between chunks that make a silence: another transfer on the same link may halve its pace."""

SLOWEST_CHUNK_S = 75.0
"""A chunk's time on the slowest link that is planned for, of 28 kbit/s. A gap counts as no longer than that."""

Ranges = tuple[Range, ...]


class Asking:
    """What one site asks for, over all its downloads: the next one begins with the pace of the one before."""

    def __init__(self) -> None:
        self._asked: set[bytes] = set()
        self._probe: tuple[bytes, int] | None = None
        self._probe_at_s = 0.0
        self._probe_came = False
        self._ask_at_s = 0.0
        self._first_wait_s = ASK_AGAIN_S
        self._wait_s = ASK_AGAIN_S
        self._gap_s: float | None = None
        self._heard_s: float | None = None

    def begin(self, manifests: Collection[Manifest]) -> None:
        """Collect these parts from now on. What an earlier download asked for and these share is on its way already."""
        digests = {manifest.digest for manifest in manifests}
        self._asked &= digests
        self._first_wait_s = first_wait_s(manifests)
        if not self._asked:
            self.ask_now()
        elif digests - self._asked:
            self._ask_at_s = 0.0

    def ask_now(self) -> None:
        """The other side is new, and may have lost what was asked for: what follows says nothing of the pace before."""
        self._probe, self._probe_came = None, False
        self._ask_at_s, self._heard_s = 0.0, None
        self._wait_s = self._silence_s()

    def came(self, digest: bytes, index: int, now_s: float) -> None:
        """A chunk came, were it for the second time: a sign of life, and of the pace."""
        is_probe = (digest, index) == self._probe
        # The silence before a probe that is answered may have been a loss, and is no pace.
        since_s = self._probe_at_s if is_probe else self._heard_s
        if since_s is not None:
            gap_s = min(now_s - since_s, SLOWEST_CHUNK_S)
            # Chunks that waited for the agent itself come as one burst: a few short gaps don't make a fast link.
            self._gap_s = max(gap_s, (self._gap_s or 0.0) / 2)
        self._heard_s = now_s
        self._probe_came |= is_probe
        self._wait_s = self._silence_s()
        self._ask_at_s = now_s + self._wait_s

    def due(self, now_s: float, missing: Callable[[], Mapping[bytes, Ranges]]) -> dict[bytes, Ranges]:
        """What to ask for now, by part; empty until it is time. `missing` gives what is lacked then, by part."""
        if now_s < self._ask_at_s:
            return {}
        lacked = missing()
        asks = self._choose(lacked, now_s)
        self._asked |= lacked.keys()
        self._ask_at_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, max(LONGEST_ASK_S, self._silence_s()))
        if self._heard_s is None:
            self._heard_s = now_s
        return asks

    def _choose(self, lacked: Mapping[bytes, Ranges], now_s: float) -> dict[bytes, Ranges]:
        unasked = {digest: ranges for digest, ranges in lacked.items() if digest not in self._asked}
        if unasked or self._probe_came:
            self._probe, self._probe_came = None, False
            return unasked or dict(lacked)
        digest, ranges = list(lacked.items())[-1]
        last = ranges[-1].stop - 1
        self._probe, self._probe_at_s = (digest, last), now_s
        return {digest: (Range(start=last, stop=last + 1),)}

    def _silence_s(self) -> float:
        return self._first_wait_s if self._gap_s is None else max(ASK_AGAIN_S, GAPS * self._gap_s)


def first_wait_s(manifests: Collection[Manifest]) -> float:
    """Seconds until the first probe where no pace is known, at least ASK_AGAIN_S.

    The waits double, so n probes leave within 2^n - 1 of them. A chunk's time on the slowest link must hold a tenth
    of the chunks at most.
    """
    chunk_bytes = max((min(manifest.size_bytes, CHUNK_BYTES) for manifest in manifests), default=0)
    num_probes = min(sum(map(num_chunks, manifests)) // 10, 10)  # more than that doesn't matter
    return max(ASK_AGAIN_S, SLOWEST_CHUNK_S * chunk_bytes / CHUNK_BYTES / ((2 << num_probes) - 1))
