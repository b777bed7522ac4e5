"""Training from Python: the result, the user's own environments, and errors."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import flat
from probes import Continuous, Counter

import purejaxrl
from purejaxrl.agents import dqn
from purejaxrl.errors import InputError
from purejaxrl.evaluation import check_arguments
from purejaxrl.plan import plan_train
from purejaxrl.replan import extended
from purejaxrl.results.run_folder import read_facts, read_params
from purejaxrl.training.loop import without_replay

TINY = {"episodes": 6, "batch_size": 16, "memory_size": 64, "hidden_sizes": (8,)}
VECTORS = {"observation_type": "default", **TINY}


def test_a_result_holds_state_tables_and_summary(tmp_path):
    result = purejaxrl.train("dqn", seeds=2, out=tmp_path / "run", eval_every=40, eval_episodes=2, **VECTORS)
    assert result.path == tmp_path / "run"
    assert list(result.episodes().groupby("run").size()) == [6, 6]
    assert set(result.frame()["run"]) == {0, 1}
    assert result.state.learner.params["kernel_0"].shape == (2, 4, 8)
    best = read_facts(result.path, "best")["eval_return"]
    np.testing.assert_allclose(best, result.frame().groupby("run")["eval_return"].max(), rtol=1e-6)
    # Whichever run ends later, each is evaluated at its own end, and no more.
    assert result.frame().groupby("run")["eval_return"].last().notna().all()
    assert result.curve.exists()
    saved = read_params(result.path, "last")
    np.testing.assert_array_equal(saved["params/kernel_0"], result.state.learner.params["kernel_0"])


def test_a3c_leaves_the_histogram_of_its_delays(tmp_path):
    settings = {"actors": 4, "t_max": 5, "env_steps": 400, "hidden_sizes": (8,)}
    result = purejaxrl.train("a3c", seeds=2, out=tmp_path / "run", log_every=100, **settings)
    # Twenty rounds of four; in the first round the w-th worker waits for w others, afterwards for three.
    assert result.facts["delay_histogram"] == {"bin_width": 1, "counts": {"0": 2, "1": 2, "2": 2, "3": 2 + 2 * 19 * 4}}
    assert list(result.frame().query("run == 0")["delay"]) == pytest.approx([(1.5 + 4 * 3) / 5, 3, 3, 3])
    assert (result.path / "delay_histogram.png").stat().st_size > 5000
    assert result.state.learner.worker_theta.pi["kernel_0"].shape == (2, 4, 4, 8)
    purejaxrl.train("a3c", out=tmp_path / "run", overwrite=True, mode="sync", **settings)


def test_continuous_actions_from_end_to_end():
    for algorithm, settings in (("vpg", {"steps_per_epoch": 800}), ("a3c", {"t_max": 50})):
        result = purejaxrl.train(
            algorithm, env="Pendulum-v1", env_steps=1600, actors=4, eval_every=800, eval_episodes=2, **settings
        )
        assert set(result.episodes()["length"]) == {200}
        assert result.frame()["eval_return"].notna().any()
        assert np.isfinite(flat(result.state.learner)).all()


def test_without_a_folder_the_files_live_with_the_result():
    result = purejaxrl.train("dqn", **VECTORS)
    path = result.path
    assert len(result.episodes()) == 6
    del result
    assert not path.exists()


def test_make_train_is_the_same_training():
    config = dqn.Config(**TINY)
    env = purejaxrl.make("CartPole-v0")
    state, _ = jax.jit(purejaxrl.make_train(dqn.agent, config, env))(jax.random.key(3))
    result = purejaxrl.train("dqn", seed=3, **VECTORS)
    trained = jax.tree.map(lambda leaf: leaf[0], without_replay(result.state.learner))
    np.testing.assert_allclose(flat(without_replay(state.learner)), flat(trained), atol=1e-5)
    assert int(state.episode.finished) == 6


def test_an_environment_object():
    result = purejaxrl.train("vpg", env=Counter(length=5), epochs=2, steps_per_epoch=40, actors=4)
    assert set(result.episodes()["length"]) == {5}
    result = purejaxrl.train("vpg", env=Counter(), max_ep_len=8, epochs=2, steps_per_epoch=40, actors=4)
    assert set(result.episodes()["length"]) == {8}
    with pytest.raises(InputError, match="Continuous has continuous actions"):
        purejaxrl.train("dqn", env=Continuous(), observation_type="default")


def test_a_variant_of_an_agent():
    """Its own name, its own target: a constant one, so Q goes to it."""
    from functools import partial

    def constant_target(config, env, params, target_params, experience):
        return jnp.full_like(experience.reward, 7.0)

    mine = dqn.agent._replace(name="constant", update=partial(dqn.update, td_target=constant_target))
    vectors = {"observation_type": "default", "batch_size": 16, "memory_size": 500, "hidden_sizes": (8,)}
    result = purejaxrl.train(mine, env_steps=1500, lr=1e-2, **vectors)
    assert result.facts["algorithm"] == "constant"
    assert result.frame()["q_mean"].iloc[-1] == pytest.approx(7, abs=0.5)


def test_best_parameters_do_not_depend_on_batch_mates():
    """Runs end at different times; a run that has ended is not evaluated again while the others go on."""
    settings = {**VECTORS, "eval_every": 10, "eval_episodes": 2, "hidden_sizes": (4,)}
    many = purejaxrl.train("dqn", seeds=3, **settings)
    for seed in range(3):
        alone = purejaxrl.train("dqn", seed=seed, **settings)
        rows = many.frame().query("run == @seed")
        np.testing.assert_array_equal(rows["eval_return"], alone.frame()["eval_return"])
        bests = [read_facts(result.path, "best")["eval_return"] for result in (many, alone)]
        assert bests[0][seed] == bests[1][0]


def test_every_core_works_from_a_fresh_interpreter():
    """Importing the package must not start JAX before its devices were asked for."""
    code = (
        "import os, purejaxrl\n"
        "result = purejaxrl.train('vpg', seeds=2, epochs=1, steps_per_epoch=8, actors=2)\n"
        "print(result.facts['devices'], min(2, len(os.sched_getaffinity(0))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    used, expected = done.stdout.split()
    assert used == expected, done.stderr


def test_make_train_checks_its_arguments():
    env = purejaxrl.make("CartPole-v0")
    several = {"lr": jnp.ones(2)}
    for wrong in ({"batch_size": 600, "memory_size": 500}, {"gamma": 2.0}, {"episodes": 5, "env_steps": 5}, several):
        with pytest.raises(InputError):
            purejaxrl.make_train(dqn.agent, dqn.Config(**wrong), env)
    config = dqn.Config(**TINY, max_ep_len=5)
    _, log = jax.jit(purejaxrl.make_train(dqn.agent, config, env))(jax.random.key(0))
    assert np.max(log.ended.length) == 5


def test_wrong_arguments_of_python():
    for wrong in ({"env": 3}, {"env": None}, {"env_params": object()}, {"devices": 99}):
        with pytest.raises(InputError):
            purejaxrl.train("dqn", **wrong)
    with pytest.raises(InputError, match="cuda"):
        purejaxrl.train("dqn", device="gpu")


def test_lists_are_sweeps():
    with pytest.raises(InputError, match="sweep"):
        purejaxrl.train("dqn", lr=[1e-3, 1e-4])
    with pytest.raises(InputError, match="no such setting"):
        purejaxrl.train("dqn", learning_rate=1e-3)


def test_a_failed_run_is_named(monkeypatch):
    """Rewards of NaN make the learner NaN; the summary says which runs, and how many are well."""

    class Sick(Counter):
        def transition(self, key, state, action):
            return jnp.nan, state.time >= 4, state.observation + 1

    result = purejaxrl.train("vpg", env=Sick(), seeds=2, epochs=2, steps_per_epoch=40, actors=4)
    assert result.facts["failed_runs"] == [0, 1]
    assert result.facts["runs_ok"] == 0


def test_config_is_a_pytree_whose_leaves_are_the_real_numbers():
    config = dqn.Config()
    leaves, treedef = jax.tree.flatten(config)
    assert sorted(map(float, leaves)) == sorted([0.99, 1e-3, 0.0, 1.0, 0.01, 0.001, 1.0])
    assert jax.tree.unflatten(treedef, leaves) == config


def test_the_public_names():
    assert sorted(purejaxrl.__all__) == [
        "AGENTS",
        "Agent",
        "Continuous",
        "Discrete",
        "Env",
        "Evaluation",
        "Images",
        "InputError",
        "PixelObservation",
        "Range",
        "Renderer",
        "Result",
        "Timestep",
        "evaluate",
        "export",
        "from_stoa",
        "load",
        "make",
        "make_train",
        "resume",
        "sweep",
        "train",
    ]
    for name in purejaxrl.__all__:
        assert getattr(purejaxrl, name) is not None
    with pytest.raises(AttributeError):
        _ = purejaxrl.nothing


def test_whole_numbers_may_be_written_as_floats():
    given = {"seeds": 2.0, "seed": 1e1, "log_every": 1e4, "eval_every": 2e4, "eval_episodes": 1e1, "devices": 1.0}
    plan = plan_train("vpg", env_steps=1e5, hidden_sizes=(8.0,), **given)
    found = [getattr(plan.options, name) for name in given]
    assert found == [2, 10, 10_000, 20_000, 10, 1]
    assert {type(number) for number in found} == {int}
    assert plan == plan_train("vpg", env_steps=100_000, hidden_sizes=(8,), **dict(zip(given, found, strict=True)))
    assert check_arguments(1e2, 3.0, "gymnax") == (100, 3)
    assert extended(plan.settings[0].config, 2e5).env_steps == 200_000
