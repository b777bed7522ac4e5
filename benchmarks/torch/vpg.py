"""Vanilla policy gradient in PyTorch, with the settings of purejaxrl's preset `original`.

`python benchmarks/torch/vpg.py --seed 0 --epochs 60 --out vpg.json`. `--envs 1` is one plain gymnasium environment,
`--envs 20` gymnasium's vectorised CartPole; steps_per_epoch counts the env steps of all of them together.

Episodes go on from one epoch to the next. What was truncated, or cut by the end of an epoch, bootstraps from V of the
true next observation.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from common import parser, prepare, report
from networks import layers_of, mlp
from rollout import (
    ACTIONS,
    OBSERVATIONS,
    Batch,
    advantages,
    collect,
    empty_batch,
    go_on,
    log_episodes,
    no_episodes,
    start_plain,
    start_vector,
)
from torch import Tensor, nn


class Settings(NamedTuple):
    """Hyperparameters."""

    steps_per_epoch: int = 4000
    gamma: float = 0.99
    lam: float = 0.97
    pi_lr: float = 3e-4
    v_lr: float = 1e-3
    train_v_iters: int = 80


def policy_loss(pi: nn.Module, observation: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
    """-mean(log pi(a|s) A)."""
    log_prob = pi(observation).log_softmax(dim=-1).gather(-1, action[..., None]).squeeze(-1)
    return -(log_prob * advantage).mean()


def value_loss(v: nn.Module, observation: Tensor, returns: Tensor) -> Tensor:
    """mean((V(s) - R)^2)."""
    return nn.functional.mse_loss(v(observation).squeeze(-1), returns)


def standardize(advantage: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the epoch."""
    return (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)


def learn(
    settings: Settings,
    pi: nn.Module,
    v: nn.Module,
    pi_optimizer: torch.optim.Adam,
    v_optimizer: torch.optim.Adam,
    batch: Batch,
    device: str,
) -> None:
    """One policy step, train_v_iters value steps; advantages and returns are of the values before."""
    observation, next_observation, action = (
        torch.from_numpy(array).flatten(0, 1).to(device)
        for array in (batch.observation[:-1], batch.next_observation, batch.action)
    )
    with torch.no_grad():
        value, next_value = (v(each).view(batch.reward.shape).cpu().numpy() for each in (observation, next_observation))
    ending = (batch.reward, value, next_value, batch.terminated, batch.truncated, settings.gamma)
    advantage = torch.from_numpy(advantages(*ending, settings.lam)).flatten().to(device)
    returns = torch.from_numpy(advantages(*ending, 1.0) + value).flatten().to(device)

    loss = policy_loss(pi, observation, action, standardize(advantage))
    pi_optimizer.zero_grad()
    loss.backward()
    pi_optimizer.step()
    for _ in range(settings.train_v_iters):
        loss = value_loss(v, observation, returns)
        v_optimizer.zero_grad()
        loss.backward()
        v_optimizer.step()


def main() -> None:
    """Train."""
    flags = parser("VPG on CartPole-v0", "epochs", 1200)
    flags.add_argument("--envs", type=int, default=1, help="1: a plain environment; more: vectorised (default 1)")
    args = flags.parse_args()
    settings = Settings()
    if settings.steps_per_epoch % args.envs:
        flags.error(f"--envs: {settings.steps_per_epoch} steps per epoch do not divide among {args.envs}")
    epochs = args.epochs if args.env_steps is None else -(-args.env_steps // settings.steps_per_epoch)
    prepare(args.seed, args.threads)

    batch = empty_batch(settings.steps_per_epoch // args.envs, args.envs)
    step = (start_plain if args.envs == 1 else start_vector)(args.envs, args.seed, batch.observation[0])
    episodes = no_episodes(args.envs)
    pi = mlp(OBSERVATIONS, ACTIONS, nn.Tanh).to(args.device)
    v = mlp(OBSERVATIONS, 1, nn.Tanh).to(args.device)
    pi_optimizer = torch.optim.Adam(pi.parameters(), lr=settings.pi_lr, fused=True)
    v_optimizer = torch.optim.Adam(v.parameters(), lr=settings.v_lr, fused=True)

    started = time.perf_counter()
    for epoch in range(epochs):
        collect(step, layers_of(pi, "cpu"), batch)
        log_episodes(episodes, batch, epoch * settings.steps_per_epoch)
        learn(settings, pi, v, pi_optimizer, v_optimizer, batch, args.device)
        go_on(batch)
    seconds = time.perf_counter() - started

    counts = epochs * settings.steps_per_epoch, epochs * (1 + settings.train_v_iters)
    report("vpg", args, settings._asdict(), episodes[:2], counts, seconds)


if __name__ == "__main__":
    main()
