"""Federated averaging without a framework, to compare with: torch, numpy, and pipes between processes of one machine.

Workers train the sites in turn, one thread each, so that all cores are busy and none has more than its share; then
the weights of the sites are averaged by their number of examples (McMahan et al. 2017, arXiv:1602.05629). Nothing is
encoded, verified, saved or sent over a network: this is about the least that a round can cost. Shape letter: P
parameters.
"""

import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import SGD
from torch.utils.data import TensorDataset

from edge_agent.training.task import load_task
from fedward.layout import Vector
from fedward.messages import Work

STOP_S = 10.0


@dataclass(frozen=True)
class Site:
    """What a worker needs to know of a site: where its records are, and how many there are to train on."""

    name: str
    options: Mapping[str, object]
    num_examples: int


class Workers:
    """Worker processes with data loaded and model built, each with its share of the sites, in a `with` block."""

    def __init__(self, task: str, model: Path, sites: Sequence[Site], work: Work, num_workers: int, seed: int) -> None:
        """`model` is a safetensors file with the initial weights."""
        shares = balanced([site.num_examples for site in sites], num_workers)
        self._examples = [[sites[at].num_examples for at in share] for share in shares]
        self._pipes: list[Connection] = []
        self._processes = []
        context = multiprocessing.get_context("spawn")
        for share in shares:
            ours, theirs = context.Pipe()
            arguments = (theirs, task, model, [sites[at] for at in share], work, seed)
            self._processes.append(context.Process(target=serve, args=arguments, daemon=True))
            self._pipes.append(ours)
        self._weights_P: Vector

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        for pipe in self._pipes:
            self._weights_P = np.frombuffer(pipe.recv_bytes(), np.float32)  # each is ready; all have the same weights
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(STOP_S)

    def round(self) -> Vector:
        """One synchronous round: every site trains from the average so far; returns the new one, (P,) float32.

        Raises EOFError when a worker has died.
        """
        for pipe in self._pipes:
            pipe.send_bytes(self._weights_P.data)
        sum_P = np.zeros_like(self._weights_P)
        for pipe, examples in zip(self._pipes, self._examples, strict=True):
            for num_examples in examples:
                sum_P += num_examples * np.frombuffer(pipe.recv_bytes(), np.float32)
        self._weights_P = sum_P / np.float32(sum(map(sum, self._examples)))
        return self._weights_P


def balanced(sizes: Sequence[int], num_workers: int) -> list[list[int]]:
    """Indices for each worker: the largest first, always to the worker that has the least so far."""
    shares: list[list[int]] = [[] for _ in range(num_workers)]
    loads = [0] * num_workers
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        lightest = loads.index(min(loads))
        shares[lightest].append(index)
        loads[lightest] += sizes[index]
    return shares


def serve(pipe: Connection, task: str, model_path: Path, sites: Sequence[Site], work: Work, seed: int) -> None:
    """A worker: sends its initial weights, then answers each weights vector with one of each of its sites."""
    torch.set_num_threads(1)
    model = load_task(task, {}).model().train()
    model.load_state_dict(load_file(model_path))
    optimizer = SGD(model.parameters(), lr=work.local_lr, momentum=work.momentum, weight_decay=work.weight_decay)
    records = [tensors(task, site.options) for site in sites]
    order = torch.Generator().manual_seed(seed)
    send(pipe, model)
    while True:
        weights = torch.frombuffer(bytearray(pipe.recv_bytes()), dtype=torch.float32)
        for images, labels in records:
            vector_to_parameters(weights.clone(), model.parameters())
            optimizer.state.clear()  # the momentum of the site before
            for _ in range(work.local_epochs):
                train_epoch(model, optimizer, images, labels, torch.randperm(len(labels), generator=order), work)
            send(pipe, model)


def tensors(task: str, options: Mapping[str, object]) -> tuple[Tensor, Tensor]:
    """All images and labels of a site, in memory."""
    images, labels = cast(TensorDataset, load_task(task, options).train_data()).tensors
    return images, labels


def train_epoch(model: nn.Module, optimizer: SGD, images: Tensor, labels: Tensor, order: Tensor, work: Work) -> None:
    """Plain SGD over the records in this order."""
    for chosen in torch.split(order, work.batch_size):
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(images[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call] # torch's
        optimizer.step()


def send(pipe: Connection, model: nn.Module) -> None:
    """The model's parameters, in its own order, as float32 bytes."""
    pipe.send_bytes(parameters_to_vector(model.parameters()).detach().numpy().data)
