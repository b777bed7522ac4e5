"""Results and policies from one process to another: what arrives is whole, whatever has become of the sender."""

import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import cloudpickle
import flax.linen as nn
import jax
import numpy as np
import pytest
from helpers import assert_same_bits

import purejaxrl
from purejaxrl.agents import vpg
from purejaxrl.errors import DivergedError, InputError, ResourceError

SMALL = {"epochs": 2, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 2}
STATES = np.random.default_rng(0).normal(scale=0.1, size=(20, 4))


class Torso(nn.Module):
    """One layer."""

    width: int = 4

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(self.width)(x))


def train_elsewhere(seed):
    """What a worker returns: a Result whose folder is the worker's own, and a policy."""
    result = purejaxrl.train("vpg", network=Torso(), seed=seed, **SMALL)
    return result, result.policy(), result.evaluate(episodes=3).mean, result.policy()(STATES)


@pytest.fixture(scope="module")
def swept():
    return purejaxrl.sweep("vpg", pi_lr=[1e-2, 1e-3], seeds=2, hidden_sizes=(4,), **SMALL)


@pytest.mark.slow
def test_a_result_comes_back_from_a_process_that_has_ended(covered_processes):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(train_elsewhere, [3]))
    for result, policy, mean, actions in found:
        assert result.path.is_dir()
        assert len(result.frame()) == 2
        assert result.summary()["runs_ok"].tolist() == [1]
        assert result.evaluate(episodes=3).mean == mean
        assert policy(STATES).tolist() == result.policy()(STATES).tolist() == actions.tolist()
        here = purejaxrl.train("vpg", network=Torso(), seed=3, **SMALL)
        assert_same_bits(result.state.learner, here.state.learner)


@pytest.mark.parametrize("module", [pickle, cloudpickle])
def test_what_arrives_is_what_was_sent(swept, module):
    some = swept[[2, 1]]
    arrived = module.loads(module.dumps(some))
    assert arrived.path != swept.path
    assert sorted(file.name for file in arrived.path.rglob("*")) == sorted(file.name for file in swept.path.rglob("*"))
    assert arrived.runs.tolist() == [2, 1]
    assert arrived.frame().equals(some.frame())
    assert arrived.evaluate(episodes=2).returns.equals(some.evaluate(episodes=2).returns)
    assert jax.tree.structure(arrived.state) == jax.tree.structure(some.state)
    assert_same_bits(arrived.state, some.state)
    again = module.loads(module.dumps(arrived[1]))
    assert_same_bits(again.state, swept[1].state)
    path = arrived.path
    del arrived
    assert not path.exists()
    assert again.path.exists()


def test_slices_that_are_sent_together_share_a_folder(swept):
    first, second = pickle.loads(pickle.dumps([swept[0], swept[1]]))
    assert first.path == second.path
    path = first.path
    del first
    assert path.exists()


@pytest.mark.slow
def test_custom_objects_are_pickled_too():
    """What cannot be imported there goes with cloudpickle, as in joblib, dask and ray."""

    def init(config, env, key):
        return vpg.init(config, env, key)

    agent = vpg.agent._replace(name="mine", init=init)
    inner = purejaxrl.make("CartPole-v1")
    env = inner._replace(name="mine too", reset=lambda key: inner.reset(key))
    networks = [Torso(), Torso(width=2)]
    result = purejaxrl.sweep(agent, env=env, network=networks, **SMALL)
    arrived = cloudpickle.loads(cloudpickle.dumps(result))
    assert arrived.plan.as_dict() == result.plan.as_dict() | {"devices": 2}
    assert arrived.evaluate(episodes=2).returns.equals(result.evaluate(episodes=2).returns)
    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        pickle.dumps(result)


def test_a_folder_that_was_asked_for_is_where_it_was(tmp_path):
    result = purejaxrl.train("vpg", network=Torso(), out=tmp_path / "run", **SMALL)
    loaded = purejaxrl.load(tmp_path / "run", network=Torso())
    for sent in (result, loaded, purejaxrl.load(tmp_path / "run")):
        arrived = pickle.loads(pickle.dumps(sent))
        assert arrived.path == tmp_path / "run"
        if sent is result or sent is loaded:
            assert arrived.policy()(STATES).tolist() == result.policy()(STATES).tolist()
    with pytest.raises(InputError, match="give network="):
        _ = arrived.plan


def test_the_state_of_runs_in_another_order(swept):
    whole = np.asarray(swept.state.learner.params.pi["kernel_0"])
    np.testing.assert_array_equal(swept[::-1].state.learner.params.pi["kernel_0"], whole[::-1])


def test_what_arrives_does_not_start_jax(swept, tmp_path):
    """Nobody could ask for one CPU device per core any more."""
    (tmp_path / "sent").write_bytes(pickle.dumps(swept))
    code = (
        "import pickle, sys\n"
        "with open('sent', 'rb') as file: result = pickle.load(file)\n"
        "assert len(result.frame()) == 8\n"
        "assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_fork_leaves_the_folder_to_its_parent(tmp_path):
    """One that ends, or lets go of what it has inherited."""
    code = (
        "import os, sys, tempfile\n"
        "from purejaxrl.analysis.pickling import TemporaryFolder\n"
        "tempfile.tempdir = '.'\n"
        "folder = TemporaryFolder()\n"
        "child = os.fork()\n"
        "if not child: sys.exit()\n"
        "os.waitpid(child, 0)\n"
        "assert folder.path.exists()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    del folder\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "assert folder.path.exists()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [InputError, DivergedError, ResourceError])
def test_errors_come_back_as_they_are(error):
    arrived = pickle.loads(pickle.dumps(error("--lr: 0 is not allowed")))
    assert (type(arrived), str(arrived), arrived.with_flags) == (
        error,
        "lr: 0 is not allowed",
        "--lr: 0 is not allowed",
    )
