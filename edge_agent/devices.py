"""Whether the device that the hospital configured can be used, and if not, which part is missing. Pure."""

from fedward.doctor.check import Check, failed, ok, skipped, warning
from fedward.doctor.facts import Gpus

GPU = "gpu"


def judge_gpu(device: str, gpus: Gpus | None) -> Check:
    """`device` is the setting: auto, cpu, cuda or cuda:N. None: the driver gave no answer in time.

    With `auto` a GPU that can't be used only costs time; a device that was asked for and is not there stops the agent.
    """
    if device == "cpu":
        return skipped(GPU, "device is cpu")
    if gpus is None:
        return failed(GPU, "the NVIDIA driver gives no answer", "restart the machine, or set device: cpu")
    found = f"torch {gpus.torch}, CUDA {gpus.cuda or 'none'}, driver {gpus.driver or 'none'}"
    if gpus.too_old:
        return failed(
            GPU,
            f"{', '.join(gpus.too_old)}: this torch has no code for it ({found})",
            "install a torch that was built for this GPU, use a newer GPU, or set device: cpu",
        )
    if len(gpus.names) > _index(device):
        return ok(GPU, f"{', '.join(gpus.names)} ({found})")
    if gpus.names:
        return failed(
            GPU,
            f"device is {device}, and {len(gpus.names)} GPU(s) are here",
            "correct `device`, or give the container all GPUs (docker: --gpus all)",
        )
    remedy = _what_is_missing(gpus)
    if device != "auto":
        return failed(GPU, f"device is {device}, and torch can use no GPU ({found})", remedy)
    if gpus.driver is None and not gpus.nodes:
        return ok(GPU, f"none; training runs on the CPU ({found})")
    return warning(GPU, f"an NVIDIA driver is here, and training runs on the CPU ({found})", remedy)


def _what_is_missing(gpus: Gpus) -> str:
    if gpus.driver is None:
        return "install the NVIDIA driver on the machine itself (not in the container), or set device: cpu"
    if gpus.cuda is None:
        return "this torch is built for CPUs: use the CUDA image of the agent, or install torch with CUDA"
    if not gpus.nodes:
        return (
            "give the container the GPUs (docker: --gpus all, with the NVIDIA Container Toolkit on the machine; "
            "Kubernetes: resources.limits nvidia.com/gpu)"
        )
    return f"update the NVIDIA driver: it must be new enough for CUDA {gpus.cuda}"


def _index(device: str) -> int:
    """Of the GPU that the setting names; the first one where it names none."""
    number = device.partition(":")[2]
    return int(number) if number.isdigit() else 0
