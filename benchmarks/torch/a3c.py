"""Asynchronous advantage actor-critic in PyTorch, with the settings of purejaxrl's preset `original`.

`python benchmarks/torch/a3c.py --seed 0 --episodes 500 --workers 2 --out a3c.json`: `--workers` processes share the
parameters and Adam's statistics. Each collects t_max steps with its copy, computes the gradient there, and then, under
a lock, makes its optimizer step and takes a fresh copy. purejaxrl's workers take turns in the same way. (Hogwild has no
lock: steps may overlap and lose parts of each other. A worker holds the lock for about 3% of its time.)

`--mode sync` is A2C in one process: the gradient is the average of all workers'. `--envs N` steps N environments as one
vectorised one; `--envs 1` steps `--workers` plain ones in a loop.

What was truncated, or cut by t_max, bootstraps from V of the true next observation. An async worker's episodes are
logged as if its t_max steps had all been taken when it had its turn.
"""

from __future__ import annotations

import argparse
import queue
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Lock
from typing import NamedTuple

import numpy as np
import torch
import torch.multiprocessing as multiprocessing
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
from torch.nn.utils import parameters_to_vector, vector_to_parameters


class Settings(NamedTuple):
    """Hyperparameters."""

    t_max: int = 200
    gamma: float = 0.99
    lam: float = 0.95
    lr: float = 1e-3
    value_coef: float = 0.5


class Shared(NamedTuple):
    """What workers share: all parameters as one vector, Adam's statistics, and counts of what has been done."""

    theta: Tensor
    step: Tensor
    mean: Tensor
    mean_square: Tensor
    counts: Tensor  # env steps, episodes, updates


def loss_of(pi: nn.Module, v: nn.Module, batch: Batch, settings: Settings, device: str) -> Tensor:
    """-mean(log pi(a|s) A) + value_coef mean((V(s) - R)^2),   A = GAE,   R = A + V(s), both without gradient."""
    observation, next_observation, action = (
        torch.from_numpy(array).to(device) for array in (batch.observation[:-1], batch.next_observation, batch.action)
    )
    value = v(observation).squeeze(-1)
    baseline = value.detach()
    with torch.no_grad():
        next_value = v(next_observation).squeeze(-1)
    values = baseline.cpu().numpy(), next_value.cpu().numpy()
    ending = (batch.terminated, batch.truncated)
    advantage = torch.from_numpy(advantages(batch.reward, *values, *ending, settings.gamma, settings.lam)).to(device)
    log_prob = pi(observation).log_softmax(dim=-1).gather(-1, action[..., None]).squeeze(-1)
    return settings.value_coef * nn.functional.mse_loss(value, advantage + baseline) - (log_prob * advantage).mean()


def shared_adam(shared: Shared, settings: Settings) -> torch.optim.Adam:
    """Adam over the shared vector, with the shared statistics as its own."""
    optimizer = torch.optim.Adam([shared.theta], lr=settings.lr, fused=True)
    optimizer.state[shared.theta] = {"step": shared.step, "exp_avg": shared.mean, "exp_avg_sq": shared.mean_square}
    return optimizer


def is_done(args: argparse.Namespace, env_steps: int, episodes: int) -> bool:
    """Whether the budget is used up."""
    return episodes >= args.episodes if args.env_steps is None else env_steps >= args.env_steps


def work(
    worker: int,
    args: argparse.Namespace,
    settings: Settings,
    shared: Shared,
    lock: Lock,
    barrier: Barrier,
    results: Queue,
) -> None:
    """One asynchronous worker, a process; reports its episodes in the end."""
    seed = int(np.random.SeedSequence((args.seed, worker)).generate_state(1)[0])
    prepare(seed, args.threads)
    batch, episodes = empty_batch(settings.t_max, 1), no_episodes(1)
    step = start_plain(1, seed, batch.observation[0])

    # The networks' parameters are views of one vector, so that a fresh copy is one copy.
    pi, v = mlp(OBSERVATIONS, ACTIONS, nn.Tanh).to(args.device), mlp(OBSERVATIONS, 1, nn.Tanh).to(args.device)
    parameters = [*pi.parameters(), *v.parameters()]
    mine = shared.theta.clone().to(args.device)
    vector_to_parameters(mine, parameters)
    optimizer = shared_adam(shared, settings)

    counts = shared.counts.numpy()

    barrier.wait()
    while not is_done(args, *counts[:2]):
        collect(step, layers_of(pi, "cpu"), batch)
        gradient = torch.autograd.grad(loss_of(pi, v, batch, settings, args.device), parameters)
        shared.theta.grad = parameters_to_vector(gradient).cpu()
        ended = np.count_nonzero(batch.terminated | batch.truncated)
        with lock:
            if is_done(args, *counts[:2]):
                break
            optimizer.step()
            mine.copy_(shared.theta)
            env_steps = int(counts[0])
            counts += (settings.t_max, ended, 1)
        log_episodes(episodes, batch, env_steps)
        go_on(batch)
    results.put(episodes[:2])


def train_async(args: argparse.Namespace, settings: Settings) -> None:
    """Start the workers, wait for them, and put their episodes in order."""
    networks = mlp(OBSERVATIONS, ACTIONS, nn.Tanh), mlp(OBSERVATIONS, 1, nn.Tanh)
    theta = torch.cat([parameters_to_vector(network.parameters()).detach() for network in networks])
    zeros = (torch.zeros(()), torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros(3, dtype=torch.int64))
    shared = Shared(*(tensor.share_memory_() for tensor in (theta, *zeros)))

    context = multiprocessing.get_context("spawn")
    lock, barrier, results = context.Lock(), context.Barrier(args.workers + 1, timeout=300), context.Queue()
    # Environments, networks and imports are ready before the clock starts.
    processes = multiprocessing.spawn(work, (args, settings, shared, lock, barrier, results), args.workers, join=False)
    barrier.wait()
    started = time.perf_counter()
    lists: list[tuple[list[int], list[float]]] = []
    while len(lists) < args.workers:
        try:
            lists.append(results.get(timeout=1))
        except queue.Empty:
            processes.join(timeout=0)  # raises what a worker raised
    seconds = time.perf_counter() - started
    processes.join()

    ended = sorted((at, value) for each in lists for at, value in zip(*each, strict=True))
    env_steps, _, updates = shared.counts.tolist()
    episodes = [at for at, _ in ended], [value for _, value in ended]
    report("a3c", args, settings._asdict(), episodes, (env_steps, updates), seconds)


def train_sync(args: argparse.Namespace, settings: Settings) -> None:
    """All environments in this process, one gradient for all of them."""
    actors = args.workers if args.envs == 1 else args.envs
    batch, episodes = empty_batch(settings.t_max, actors), no_episodes(actors)
    step = (start_plain if args.envs == 1 else start_vector)(actors, args.seed, batch.observation[0])
    pi, v = mlp(OBSERVATIONS, ACTIONS, nn.Tanh).to(args.device), mlp(OBSERVATIONS, 1, nn.Tanh).to(args.device)
    optimizer = torch.optim.Adam([*pi.parameters(), *v.parameters()], lr=settings.lr, fused=True)
    env_steps, updates = 0, 0

    started = time.perf_counter()
    while not is_done(args, env_steps, len(episodes.returns)):
        collect(step, layers_of(pi, "cpu"), batch)
        log_episodes(episodes, batch, env_steps)
        loss = loss_of(pi, v, batch, settings, args.device)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        go_on(batch)
        env_steps, updates = env_steps + settings.t_max * actors, updates + 1
    seconds = time.perf_counter() - started

    report("a2c", args, settings._asdict(), episodes[:2], (env_steps, updates), seconds)


def main() -> None:
    """Train."""
    flags = parser("A3C on CartPole-v0", "episodes", 10_000)
    flags.add_argument("--mode", choices=("async", "sync"), default="async")
    flags.add_argument("--workers", type=int, default=16, help="async: processes; sync: plain environments")
    flags.add_argument("--envs", type=int, default=1, help="sync: a vectorised env of so many; 1: plain ones")
    args = flags.parse_args()
    if args.mode == "async" and args.envs != 1:
        flags.error(f"--envs: {args.envs} goes with --mode sync; an asynchronous worker has one environment")
    prepare(args.seed, args.threads)
    (train_async if args.mode == "async" else train_sync)(args, Settings())


if __name__ == "__main__":
    main()
