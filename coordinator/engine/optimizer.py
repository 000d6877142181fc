"""The server optimizer, block by block, in place: what a version does with the averaged update G.

G points the way the model should go (it is added), the negative of a gradient. Elementwise, float32, with two
buffers of one block for all temporaries. Shape letters: P parameters, B elements of a block.

    sgd                                                          w += lr G
    momentum  m = b m + G                                        w += lr m
    adagrad   m = b1 m + (1-b1) G   u = u + G^2                  w += lr m / (sqrt(u) + eps)
    adam      m as adagrad          u = b2 u + (1-b2) G^2        w as adagrad
    yogi      m as adagrad          u = u - (1-b2) G^2 sign(u - G^2)
    amsgrad   m, u as adam          u_max = max(u_max, u)        w += lr m / (sqrt(u_max) + eps)

The adaptive three are FedAdagrad, FedAdam and FedYogi of Reddi et al., Adaptive Federated Optimization,
arXiv:2003.00295: no bias correction, u starts at eps^2. The momentum is that of FedAvgM (Hsu et al.,
arXiv:1909.06335); the maximum that of AMSGrad (Reddi et al., ICLR 2018).
"""

from dataclasses import dataclass

import numpy as np

from coordinator.engine.settings import OptimizerSettings
from fedward.layout import Vector


@dataclass
class ServerState:
    """The model and its optimizer's moments, each (P,) float32 or None where the optimizer keeps none.

    `fold` changes the arrays in place. All of them belong to a version and are saved with it.
    """

    w: Vector
    m: Vector | None = None
    u: Vector | None = None
    u_max: Vector | None = None

    @classmethod
    def initial(cls, w_P: Vector, settings: OptimizerSettings) -> "ServerState":
        """The state before the first version, of a copy of w_P."""
        adaptive = settings.name not in ("sgd", "momentum")
        floor = settings.epsilon**2
        return cls(
            w=w_P.copy(),
            m=None if settings.name == "sgd" else np.zeros_like(w_P),
            u=np.full_like(w_P, floor) if adaptive else None,
            u_max=np.full_like(w_P, floor) if settings.name == "amsgrad" else None,
        )


def step(state: ServerState, span: slice, mean_B: Vector, scratch_B: Vector, settings: OptimizerSettings) -> None:
    """One optimizer step on `span` of the state, in place; mean_B is G there, and what was added to w afterwards.

    scratch_B is overwritten.

    Raises ValueError where the state lacks a moment that the optimizer needs.
    """
    if settings.name == "sgd":
        np.multiply(mean_B, settings.learning_rate, out=mean_B)
        state.w[span] += mean_B
    elif settings.name == "momentum":
        m_B = _moment(state.m, "m", settings)[span]
        np.multiply(m_B, settings.momentum, out=m_B)
        m_B += mean_B
        np.multiply(m_B, settings.learning_rate, out=mean_B)
        state.w[span] += mean_B
    else:
        _adaptive_step(state, span, mean_B, scratch_B, settings)


def _adaptive_step(
    state: ServerState, span: slice, mean_B: Vector, scratch_B: Vector, settings: OptimizerSettings
) -> None:
    m_B, u_B = _moment(state.m, "m", settings)[span], _moment(state.u, "u", settings)[span]
    np.multiply(mean_B, 1.0 - settings.beta1, out=scratch_B)
    np.multiply(m_B, settings.beta1, out=m_B)
    m_B += scratch_B
    np.square(mean_B, out=mean_B)
    _second_moment(u_B, mean_B, scratch_B, settings)
    if settings.name == "amsgrad":
        max_B = _moment(state.u_max, "u_max", settings)[span]
        np.maximum(max_B, u_B, out=max_B)
        u_B = max_B
    np.sqrt(u_B, out=scratch_B)
    scratch_B += np.float32(settings.epsilon)
    np.divide(m_B, scratch_B, out=mean_B)
    np.multiply(mean_B, settings.learning_rate, out=mean_B)
    state.w[span] += mean_B


def _second_moment(u_B: Vector, square_B: Vector, scratch_B: Vector, settings: OptimizerSettings) -> None:
    """u in place from G^2 = square_B, which is overwritten."""
    if settings.name == "adagrad":
        u_B += square_B
        return
    if settings.name == "yogi":
        np.subtract(square_B, u_B, out=scratch_B)
        np.sign(scratch_B, out=scratch_B)
        np.multiply(square_B, scratch_B, out=square_B)
    else:
        np.multiply(u_B, settings.beta2, out=u_B)
    np.multiply(square_B, 1.0 - settings.beta2, out=square_B)
    u_B += square_B


def _moment(moment_P: Vector | None, name: str, settings: OptimizerSettings) -> Vector:
    if moment_P is None:
        raise ValueError(f"the state has no {name}, which {settings.name} needs: it was made for another optimizer")
    return moment_P
