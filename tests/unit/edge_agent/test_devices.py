"""Which part is missing between torch and a GPU."""

import pytest

from edge_agent.devices import judge_gpu
from fedward.doctor.check import Verdict
from fedward.doctor.facts import Gpus

H100 = "NVIDIA H100"


def gpus(
    driver: str | None = "560.1",
    nodes: tuple[str, ...] = ("nvidia0",),
    cuda: str | None = "12.6",
    names: tuple[str, ...] = (),
    too_old: tuple[str, ...] = (),
) -> Gpus:
    return Gpus(driver, nodes, "2.13.0", cuda, names, too_old)


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        (gpus(driver=None, nodes=()), "install the NVIDIA driver"),
        (gpus(cuda=None), "use the CUDA image"),
        (gpus(nodes=()), "--gpus all"),
        (gpus(), "update the NVIDIA driver: it must be new enough for CUDA 12.6"),
        (gpus(names=(H100,), too_old=(H100,)), "built for this GPU"),
        (None, "restart the machine"),
    ],
)
def test_a_gpu_that_was_asked_for_and_can_not_be_used_says_which_part_is_missing(found: Gpus, remedy: str) -> None:
    check = judge_gpu("cuda", found)
    assert check.verdict is Verdict.FAILED
    assert remedy in check.remedy


def test_a_gpu_that_lies_idle_is_a_warning() -> None:
    assert judge_gpu("auto", gpus(cuda=None)).verdict is Verdict.WARNING


def test_a_machine_without_a_gpu_is_ok_unless_one_was_asked_for() -> None:
    assert judge_gpu("auto", gpus(driver=None, nodes=())).verdict is Verdict.OK
    assert judge_gpu("cuda:0", gpus(driver=None, nodes=())).verdict is Verdict.FAILED


def test_a_gpu_that_is_there_is_named() -> None:
    check = judge_gpu("cuda:0", gpus(names=(H100,)))
    assert check.verdict is Verdict.OK
    assert H100 in check.found
    assert judge_gpu("cuda:1", gpus(names=(H100,))).verdict is Verdict.FAILED


def test_a_cpu_that_was_chosen_asks_for_no_gpu() -> None:
    assert judge_gpu("cpu", None).verdict is Verdict.SKIPPED
