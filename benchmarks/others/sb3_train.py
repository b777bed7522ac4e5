"""Stable-Baselines3 on CartPole-v1 at the settings that RL Zoo publishes for it; prints a line of JSON.

`python benchmarks/others/sb3_train.py ppo --seed 0`. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env


def linear(start: float):
    """A schedule that falls from start to 0."""
    return lambda left: left * start


# Class, environments, env steps, arguments.
SETTINGS = {
    "a2c": (A2C, 8, 500_000, {"ent_coef": 0.0}),
    "ppo": (
        PPO,
        8,
        100_000,
        {
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "ent_coef": 0.0,
            "learning_rate": linear(1e-3),
            "clip_range": linear(0.2),
        },
    ),
    "dqn": (
        DQN,
        1,
        50_000,
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
}


def main() -> None:
    """Train one seed on one thread, and say how fast, and how far it got."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algorithm", choices=SETTINGS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env_steps", type=int, help="in place of the published number")
    args = parser.parse_args()
    kind, envs, published, settings = SETTINGS[args.algorithm]
    env_steps = args.env_steps or published
    torch.set_num_threads(1)
    model = kind(
        "MlpPolicy", make_vec_env("CartPole-v1", envs, seed=args.seed), seed=args.seed, device="cpu", **settings
    )
    started = time.perf_counter()
    model.learn(env_steps)
    seconds = time.perf_counter() - started
    returns = [episode["r"] for episode in model.ep_info_buffer]
    print(json.dumps({"env_steps": env_steps, "seconds": seconds, "final_return": sum(returns) / max(len(returns), 1)}))


if __name__ == "__main__":
    main()
