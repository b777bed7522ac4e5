"""rejax on CartPole-v1 at the settings it publishes, without the evaluations in between; prints a line of JSON.

`python benchmarks/others/rejax_train.py dqn --seeds 64`, in an environment of its own: rejax needs gymnax 0.0.9.
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import rejax

# configs/gymnax/cartpole.yaml of rejax; the learner is rejax's own.
SETTINGS = {
    "ppo": {
        "agent_kwargs": {"activation": "tanh"},
        "num_envs": 5,
        "num_steps": 100,
        "num_epochs": 5,
        "num_minibatches": 5,
        "learning_rate": 0.00075,
        "max_grad_norm": 0.5,
        "total_timesteps": 100_000,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_eps": 0.2,
        "ent_coef": 0.01,
        "vf_coef": 0.5,
    },
    "dqn": {
        "agent": "DuelingQNetwork",
        "agent_kwargs": {"activation": "swish"},
        "num_envs": 10,
        "buffer_size": 50_000,
        "fill_buffer": 5_000,
        "batch_size": 100,
        "max_grad_norm": 10,
        "learning_rate": 0.001,
        "num_epochs": 5,
        "total_timesteps": 100_000,
        "polyak": 0.98,
        "eps_start": 1,
        "eps_end": 0.05,
        "exploration_fraction": 0.5,
        "gamma": 0.99,
        "ddqn": True,
        "normalize_observations": False,
    },
}


def nothing(algorithm, train_state, key):
    """In place of an evaluation, which would cost time and change nothing."""
    return ()


def main() -> None:
    """Train some seeds side by side; compile time apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algorithm", choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    settings = SETTINGS[args.algorithm]
    algorithm = rejax.get_algo(args.algorithm).create(
        env="CartPole-v1", eval_freq=settings["total_timesteps"], skip_initial_evaluation=True, **settings
    )
    algorithm = algorithm.replace(eval_callback=nothing)
    keys = jax.random.split(jax.random.PRNGKey(0), args.seeds)
    started = time.perf_counter()
    train = jax.jit(jax.vmap(algorithm.train)).lower(keys).compile()
    compiled = time.perf_counter()
    jax.block_until_ready(train(keys))
    seconds = time.perf_counter() - compiled
    env_steps = settings["total_timesteps"] * args.seeds
    print(json.dumps({"env_steps": env_steps, "seconds": seconds, "compile_seconds": compiled - started}))


if __name__ == "__main__":
    main()
