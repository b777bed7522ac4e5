"""Deep Q-learning in PyTorch, with the settings of purejaxrl's preset `original`.

`python benchmarks/torch/dqn.py --seed 0 --episodes 150 --out dqn.json`, with `--observation_type img` from images as
gymnasium renders them. One gradient step per env step, from the one on that stores the 512th transition.

What was truncated bootstraps; what was terminated does not.
"""

from __future__ import annotations

import copy
import math
import os
import random
import time
from typing import NamedTuple

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import numpy as np
import torch
from common import parser, prepare, report
from images import CHANNELS, HEIGHT, WIDTH, shrink
from networks import Layers, forward_relu, layers_of, mlp
from rollout import ACTIONS, OBSERVATIONS, make_env
from torch import Tensor, nn


class Settings(NamedTuple):
    """Hyperparameters."""

    batch_size: int = 512
    memory_size: int = 100_000
    target_update: int = 10
    gamma: float = 0.99
    lr: float = 1e-3
    eps_start: float = 1.0
    eps_end: float = 0.01
    eps_rate: float = 0.001


class Transitions(NamedTuple):
    """A batch sampled from the replay. The discount is gamma, or 0 where the next observation is terminal."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor


class States:
    """Replay of states: rows (s, s', a, r, discount) of one buffer, so that sampling a batch is one gather."""

    size = OBSERVATIONS

    def __init__(self, settings: Settings, device: str) -> None:
        self.device, self.written = device, 0
        self.rows = torch.zeros(settings.memory_size, 2 * OBSERVATIONS + 3)
        self.array = self.rows.numpy()

    def start(self, observation: np.ndarray) -> None:
        """Begin an episode."""
        self.observation = observation

    def newest(self) -> Tensor:
        """The observation to act on, [1, 4]."""
        return torch.from_numpy(self.observation)[None].to(self.device)

    def add(self, action: int, reward: float, discount: float, observation: np.ndarray) -> None:
        """Store the step from the newest observation to this one, over the oldest."""
        row = self.array[self.written % len(self.array)]
        row[:4] = self.observation
        row[4:8] = observation
        row[8:] = action, reward, discount
        self.written += 1
        self.observation = observation

    def sample(self, count: int) -> Transitions:
        """Transitions sampled uniformly."""
        rows = self.rows.index_select(0, torch.randint(min(self.written, len(self.rows)), (count,))).to(self.device)
        return Transitions(rows[:, :4], rows[:, 8].long(), rows[:, 9], rows[:, 10], rows[:, 4:8])


class Images:
    """Replay of differences of images: single frames in uint8; batches are worked out in buffers made once.

    An observation is the newest frame minus the one before, in [-1, 1], and 0 at an episode's first. (At a terminal one
    it would be 0 too, but nothing reads it.) A row of `table` tells which frames the one before, s and s' are.
    """

    size = HEIGHT * WIDTH * CHANNELS

    def __init__(self, settings: Settings, device: str) -> None:
        self.device, self.written = device, 0
        # An episode of L steps has L + 1 frames, and none is shorter than 8 steps: the pole takes as long to fall.
        slots = settings.memory_size + settings.memory_size // 8 + 2
        self.frames = torch.empty(slots, self.size, dtype=torch.uint8, device=device)
        self.table = torch.zeros(settings.memory_size, 3, dtype=torch.int64)
        self.numbers = torch.zeros(settings.memory_size, 3)
        self.sampled = torch.empty(3 * settings.batch_size, self.size, dtype=torch.uint8, device=device)
        self.floats = torch.empty(3, settings.batch_size, self.size, device=device)
        self.previous, self.current = -1, -1

    def keep(self, frame: Tensor) -> int:
        """Store a frame in the next slot; returns the slot."""
        slot = (self.current + 1) % len(self.frames)
        self.frames[slot] = frame
        return slot

    def start(self, frame: Tensor) -> None:
        """Begin an episode: its first frame stands for the one before too, which makes the difference 0."""
        self.previous = self.current = self.keep(frame)

    def newest(self) -> Tensor:
        """The observation to act on, [1, 10800]."""
        return (self.frames[self.current].float() - self.frames[self.previous])[None].mul_(1 / 255)

    def add(self, action: int, reward: float, discount: float, frame: Tensor) -> None:
        """Store the step from the newest frame to this one, over the oldest step."""
        slot, row = self.keep(frame), self.written % len(self.table)
        self.table[row] = torch.tensor((self.previous, self.current, slot))
        self.numbers[row] = torch.tensor((action, reward, discount))
        self.written += 1
        self.previous, self.current = self.current, slot

    def sample(self, count: int) -> Transitions:
        """Transitions sampled uniformly; observations lie in buffers that the next call writes over."""
        rows = torch.randint(min(self.written, len(self.table)), (count,))
        slots = self.table[rows].t().reshape(-1).to(self.device)
        torch.index_select(self.frames, 0, slots, out=self.sampled)
        before, now, then = self.floats.copy_(self.sampled.view_as(self.floats))
        next_observation, observation = then.sub_(now), now.sub_(before)
        self.floats[1:].mul_(1 / 255)
        numbers = self.numbers[rows].to(self.device)
        return Transitions(observation, numbers[:, 0].long(), numbers[:, 1], numbers[:, 2], next_observation)


def epsilon_schedule(settings: Settings, env_steps: int) -> float:
    """End + (start - end) exp(-rate env_steps)."""
    start, end, rate = settings.eps_start, settings.eps_end, settings.eps_rate
    return end + (start - end) * math.exp(-rate * env_steps)


def q_targets(reward: Tensor, discount: Tensor, next_q: Tensor) -> Tensor:
    """y = r + gamma max_a' Q_target(s', a'), and y = r where s' is terminal."""
    return reward + discount * next_q.amax(dim=-1)


def td_loss(q: nn.Module, observation: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """mean((Q(s, a) - y)^2)."""
    return nn.functional.mse_loss(q(observation).gather(-1, action[:, None]).squeeze(-1), target)


def learn(q: nn.Module, target_layers: Layers, optimizer: torch.optim.Adam, batch: Transitions) -> None:
    """One gradient step."""
    y = q_targets(batch.reward, batch.discount, forward_relu(target_layers, batch.next_observation))
    loss = td_loss(q, batch.observation, batch.action, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def main() -> None:
    """Train."""
    flags = parser("DQN on CartPole-v0", "episodes", 1200)
    flags.add_argument("--observation_type", choices=("default", "img"), default="default")
    args = flags.parse_args()
    settings = Settings()
    prepare(args.seed, args.threads)

    if args.observation_type == "img":
        env, memory = make_env("rgb_array"), Images(settings, args.device)
    else:
        env, memory = make_env(), States(settings, args.device)

    def see(state: np.ndarray) -> np.ndarray | Tensor:
        return shrink(env.render()) if args.observation_type == "img" else state

    memory.start(see(env.reset(seed=args.seed)[0]))
    q = mlp(memory.size, ACTIONS, nn.ReLU).to(args.device)
    target = copy.deepcopy(q)
    layers, target_layers = layers_of(q, args.device), layers_of(target, args.device)
    optimizer = torch.optim.Adam(q.parameters(), lr=settings.lr, fused=True)
    ended_at: list[int] = []
    returns: list[float] = []
    env_steps, gradient_steps, episode_return = 0, 0, 0.0
    warm_up = 0, 0.0

    started = time.perf_counter()
    while len(returns) < args.episodes if args.env_steps is None else env_steps < args.env_steps:
        if random.random() < epsilon_schedule(settings, env_steps):
            action = random.randrange(ACTIONS)
        else:
            action = forward_relu(layers, memory.newest()).argmax().item()
        state, reward, terminated, truncated, _ = env.step(action)
        memory.add(action, reward, 0.0 if terminated else settings.gamma, see(state))
        env_steps += 1
        episode_return += reward

        if memory.written < settings.batch_size:
            warm_up = env_steps, time.perf_counter() - started
        else:
            learn(q, target_layers, optimizer, memory.sample(settings.batch_size))
            gradient_steps += 1

        if terminated or truncated:
            ended_at.append(env_steps)
            returns.append(episode_return)
            episode_return = 0.0
            if len(returns) % settings.target_update == 0:
                target.load_state_dict(q.state_dict())
            memory.start(see(env.reset()[0]))
    seconds = time.perf_counter() - started

    report("dqn", args, settings._asdict(), (ended_at, returns), (env_steps, gradient_steps), seconds, warm_up)


if __name__ == "__main__":
    main()
