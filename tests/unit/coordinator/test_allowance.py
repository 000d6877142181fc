"""How much one site may send."""

from coordinator.allowance import BURST_S, CALM_S, OUT_S, Allowance, Allowances, taken
from fedward.limits import CHUNK_BYTES, MAX_PAYLOAD_BYTES

EACH = Allowance(messages_s=2.0, bytes_s=4.0 * CHUNK_BYTES)


def admitted(allowances: Allowances, site: str, tries: int, now_s: float, chunk: bool = False) -> int:
    return sum(allowances.admit(site, 100, chunk, now_s) for _ in range(tries))


def test_a_site_may_send_a_burst_and_then_its_rate() -> None:
    allowances = Allowances(EACH)
    assert admitted(allowances, "a", 100, now_s=50.0) == 2 * BURST_S
    assert admitted(allowances, "a", 100, now_s=50.4) == 0
    assert admitted(allowances, "a", 100, now_s=53.0) == 6
    assert admitted(allowances, "a", 100, now_s=1e6) == 2 * BURST_S


def test_what_one_site_sends_takes_nothing_from_another() -> None:
    allowances = Allowances(EACH)
    admitted(allowances, "a", 1000, now_s=0.0)
    assert allowances.over == {"a"}
    assert admitted(allowances, "b", 5, now_s=0.0) == 5


def test_chunks_are_counted_as_whole_ones_and_not_as_messages() -> None:
    allowances = Allowances(EACH)
    assert admitted(allowances, "a", 1000, now_s=0.0, chunk=True) == 4 * BURST_S
    assert admitted(allowances, "a", 1, now_s=0.0) == 0
    assert admitted(allowances, "a", 1000, now_s=1.0, chunk=True) == 4


def test_a_message_larger_than_a_burst_comes_and_is_paid_for_afterwards() -> None:
    bucket = taken(EACH.full(0.0), int(100 * EACH.bytes_s), chunk=False)
    assert bucket is not None
    assert taken(EACH.refilled(bucket, 89.0), 1, chunk=False) is None
    assert taken(EACH.refilled(bucket, 91.0), 1, chunk=False) is not None


BURST = int(BURST_S * EACH.messages_s)


def test_a_flood_keeps_its_site_out_for_a_while_and_no_other() -> None:
    allowances = Allowances(EACH)
    admitted(allowances, "a", 2 * BURST, now_s=0.0)  # a burst, and as much again
    assert allowances.out(0.0) == frozenset()
    admitted(allowances, "b", 2 * BURST, now_s=0.0)
    admitted(allowances, "a", 1, now_s=0.1)
    assert allowances.out(0.1) == allowances.out(OUT_S) == {"a"}
    assert allowances.out(OUT_S + 0.2) == frozenset()


def test_what_was_too_much_before_a_calm_is_forgotten() -> None:
    allowances = Allowances(EACH)
    admitted(allowances, "a", 2 * BURST, now_s=0.0)
    admitted(allowances, "a", 2 * BURST, now_s=CALM_S + 1.0)
    assert allowances.out(CALM_S + 1.0) == frozenset()


def test_the_chunks_of_a_whole_update_are_no_flood_however_fast_they_come() -> None:
    allowances = Allowances(EACH)
    chunks = int(EACH.bytes_s * BURST_S / CHUNK_BYTES) + MAX_PAYLOAD_BYTES // CHUNK_BYTES
    assert sum(allowances.admit("a", CHUNK_BYTES, True, 0.0) for _ in range(chunks)) < chunks
    assert allowances.out(0.0) == frozenset()
    allowances.admit("a", CHUNK_BYTES, True, 0.0)
    assert allowances.out(0.0) == {"a"}
