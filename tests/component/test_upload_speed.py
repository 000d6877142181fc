"""How the upload benchmark makes its payloads and figures."""

import numpy as np
import pytest

from benchmarks.upload import Run, layout_for, medians
from fedward.codec import codec


def run(upload: float, coordinator_cpu_s: float) -> Run:
    return Run(
        upload=upload,
        sealed=50.0,
        tcp=1000.0,
        disk=500.0,
        sha256=900.0,
        coordinator_cpu_s=coordinator_cpu_s,
        site_cpu_s=0.1,
        broker_cpu_s=0.1,
    )


@pytest.mark.parametrize("codec_name", ["f32", "f32z", "eden4"])
def test_the_model_is_made_for_a_payload_of_the_asked_size(codec_name: str) -> None:
    layout = layout_for(3_000_000, codec_name)
    delta_P = np.random.default_rng(7).standard_normal(layout.size, np.float32)
    payload = codec(codec_name).encode(delta_P, layout, bytes(32))
    assert len(payload) == pytest.approx(3_000_000, rel=0.01)


def test_the_figures_are_medians_each_of_its_own() -> None:
    middle = medians([run(10.0, 0.3), run(90.0, 0.1), run(60.0, 0.2)])
    assert (middle.upload, middle.coordinator_cpu_s, middle.tcp) == (60.0, 0.2, 1000.0)
