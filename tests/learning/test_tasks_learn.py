"""The tasks that ship learn from one site's records. Seeded; thresholds leave a margin over several seeds."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edge_agent.training.capability import Capability, Precision
from edge_agent.training.evaluate import evaluate
from edge_agent.training.module import initial_model
from edge_agent.training.task import load_task
from edge_agent.training.train import train
from fedward.messages import LocalOptimizer, Work
from sandbox.datasets import split

CPU = Capability("cpu", Precision.FLOAT32)

needs_data = pytest.mark.skipif("FEDWARD_DATA" not in os.environ, reason="set FEDWARD_DATA to run")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def auc_of_the_largest_site(name: str, num_sites: int, work: Work, folder: Path) -> tuple[float, float]:
    """AUC on the pooled held-out records before and after the largest site trained once, alone."""
    data = os.environ.get("FEDWARD_DATA")
    sites = split(name, num_sites, Path(data) if data else None, folder)
    largest = max(sites, key=lambda site: site.num_train)
    task, pooled = load_task(name, largest.options), load_task(name, sites.pooled)
    layout, vector_P = initial_model(task, seed=1)
    delta_P, _ = train(
        task, layout, vector_P, work,
        capability=CPU, seed=1, on_step=lambda _: None, stop=threading.Event(),
    )  # fmt: skip
    before, after = (
        evaluate(pooled, layout, vector, CPU)[1]["auc"] for vector in (vector_P, vector_P + delta_P.numpy())
    )
    return before.numerator / before.denominator, after.numerator / after.denominator


@pytest.mark.slow
def test_breast_cancer_is_learned_by_one_hospital_in_fifty_steps(tmp_path: Path) -> None:
    work = Work(local_epochs=5, batch_size=16, local_lr=0.05, momentum=0.9, max_steps=50)
    before, after = auc_of_the_largest_site("breast-cancer", 4, work, tmp_path)
    assert before < 0.9
    assert after > 0.97


@pytest.mark.slow
@needs_data
def test_heart_disease_is_learned_across_hospitals_from_the_records_of_one(tmp_path: Path) -> None:
    work = Work(local_epochs=5, batch_size=16, local_lr=0.01, momentum=0.9)
    before, after = auc_of_the_largest_site("heart-disease", 4, work, tmp_path)
    assert before < 0.7
    assert after > 0.8


@pytest.mark.slow
@needs_data
def test_pneumonia_is_learned_by_one_hospital_in_sixty_steps(tmp_path: Path) -> None:
    work = Work(local_epochs=2, batch_size=32, local_lr=1e-3, optimizer=LocalOptimizer.ADAM, max_steps=60)
    before, after = auc_of_the_largest_site("pneumonia", 2, work, tmp_path)
    assert before < 0.8
    assert after > 0.88
