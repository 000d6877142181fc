"""Every bound on what is believed of untrusted input, each with its reason."""

KIB = 1024
MIB = 1024 * KIB

CHUNK_BYTES = 256 * KIB
"""A chunk of a payload. Larger costs memory (paho holds it twice), smaller costs round trips."""

MAX_MESSAGE_BYTES = 1 * MIB
"""Any MQTT payload. Brokers' own limits start at 1 MB (EMQX, mosquitto 2.1 has 2 MB)."""

MAX_PACKET_BYTES = MAX_MESSAGE_BYTES + 4 * KIB
"""A whole MQTT packet: the payload, and what it may hold besides, the topic and the properties. Limits of brokers count
both, and what a broker sends beyond ends the connection before it is read."""

MAX_INBOX_BYTES = 64 * MIB
"""Payloads that came in and were not handled yet: beyond, nothing is read from the broker for a while. A chunk of each
of 256 sites."""

LEAST_BROKER_PAYLOAD = 512 * KIB
"""What a broker must take: the largest offer. Only announcements of models above 1 GB are larger."""

INLINE_BYTES = 128 * KIB
"""An update up to this size rides inside its offer: one message there, one receipt back."""

MAX_PAYLOAD_BYTES = 2048 * MIB
"""A model part or an update: 8192 chunks, so the list of their digests (256 KiB) fits in one message."""

MAX_CHUNKS = MAX_PAYLOAD_BYTES // CHUNK_BYTES

MAX_PARTS = 32
"""Parts of one announcement: a snapshot and its chain of deltas (at most 20 by the snapshot rule)."""

MAX_CODECS = 16
"""Codecs that one announcement allows."""

MAX_NAME = 64
"""Length of a federation, site, task or codec name: they are MQTT topic levels and certificate names."""

MAX_VERSION = 2**53 - 1
"""Versions and counters stay exact in JSON and in float64."""

MAX_SEED = 2**53 - 1
"""Seed of version 0: any that torch takes and JSON holds exactly."""

MAX_EXAMPLES = 10**9
"""Records of one site: bounds the weight that a site can claim."""

MAX_STEPS = 10**9
"""Local steps of one update."""

MAX_NORM = 1e15
"""L2 norm of an update: sums of such updates stay far below float32's 3e38, so the model stays finite."""

MAX_TENSORS = 100_000
"""Tensors of one layout."""

MAX_METRICS = 32
"""Metrics of one evaluation."""

MAX_GPUS = 1024
"""GPUs of one site: the largest machine has a fraction of that."""

KEY_ID_BYTES = 16
"""Name of a model key: drawn at random, never twice."""

MAX_RANGES = 4096
"""Ranges of missing chunks in one request or grant; what does not fit is asked for next time."""

MAX_PEM_BYTES = 4 * KIB
"""A certificate or a request for one, as PEM; ours have about 600 bytes."""
