"""Networks of a user's own: any Flax module that makes features, with heads, run folders and errors as the rest."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import PROGRESS

import purejaxrl
from purejaxrl.agents import AGENTS, a3c, dqn, vpg
from purejaxrl.cli import main
from purejaxrl.cli.flags import training_parser
from purejaxrl.errors import InputError
from purejaxrl.plan import plan_train
from purejaxrl.replan import replan
from purejaxrl.results.labels import show
from purejaxrl.results.run_folder import plain
from purejaxrl.types import Transition

TINY = {"observation_type": "default", "batch_size": 16, "memory_size": 64, "env_steps": 120}


class Torso(nn.Module):
    """One layer of tanh."""

    width: int = 8

    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.Dense(self.width)(x))


class Reversed(Torso):
    """The same, of inputs in reverse order."""

    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.Dense(self.width)(x[:, ::-1]))


@pytest.fixture(scope="module")
def cartpole():
    return purejaxrl.make("CartPole-v0")


def by_hand(params, observation):
    """The torso and its linear head, written out."""
    params, observation = jax.tree.map(np.asarray, (params, observation))
    dense = params["body"]["Dense_0"]
    return (
        np.tanh(observation @ dense["kernel"] + dense["bias"]) @ params["head"]["kernel_0"] + params["head"]["bias_0"]
    )


def test_the_package_adds_linear_heads(cartpole):
    """Q has an output per action; pi and V each have parameters of the module of their own."""
    observation = jax.random.normal(jax.random.key(9), (5, 4))
    config = dqn.Config(network=Torso(), batch_size=8, memory_size=16)
    params = dqn.init(config, cartpole, jax.random.key(0)).params
    assert jax.tree.map(jnp.shape, params) == {
        "body": {"Dense_0": {"kernel": (4, 8), "bias": (8,)}},
        "head": {"kernel_0": (8, 2), "bias_0": (2,)},
    }
    q_value = dqn.q_values(config, cartpole, params, observation)
    np.testing.assert_allclose(q_value, by_hand(params, observation), rtol=1e-5)

    config = vpg.Config(network=Torso(6))
    learner = vpg.init(config, cartpole, jax.random.key(0))
    value = vpg.state_value(config, cartpole, learner.v_params, observation)
    np.testing.assert_allclose(value, by_hand(learner.v_params, observation)[:, 0], rtol=1e-5)
    pi, v = (params["body"]["Dense_0"]["kernel"] for params in (learner.pi_params, learner.v_params))
    assert np.abs(pi - v).min() > 1e-6

    theta = a3c.init(a3c.Config(network=Torso()), cartpole, jax.random.key(0)).theta
    assert theta.pi["head"]["kernel_0"].shape == (8, 2)
    assert theta.v["head"]["kernel_0"].shape == (8, 1)


def test_the_module_itself_learns(cartpole):
    """One epoch of value steps moves V's torso as Adam on a plain sum of squares does."""
    config = vpg.Config(network=Torso(), steps_per_epoch=6, actors=2, train_v_iters=1, gamma=0.0, v_lr=0.1)
    learner = vpg.init(config, cartpole, jax.random.key(1))
    observation, following = jax.random.normal(jax.random.key(2), (2, 3, 2, 4))
    reward, no = jnp.arange(6.0).reshape(3, 2), jnp.zeros((3, 2), bool)
    batch = Transition(observation, jnp.zeros((3, 2), int), reward, no, no, following)
    after, _ = vpg.update(config, cartpole, learner, batch, PROGRESS, jax.random.key(3))

    def loss(params):
        dense, head = params["body"]["Dense_0"], params["head"]
        hidden = jnp.tanh(observation.reshape(6, 4) @ dense["kernel"] + dense["bias"][None])
        return jnp.mean((hidden @ head["kernel_0"] + head["bias_0"][None] - reward.reshape(6, 1)) ** 2)

    adam = optax.adam(0.1)
    step, _ = adam.update(jax.grad(loss)(learner.v_params), adam.init(learner.v_params))
    expected = optax.apply_updates(learner.v_params, step)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), after.v_params, expected)


def test_gaussian_policies_have_the_module_beneath_their_mean():
    env = purejaxrl.make("Pendulum-v1")
    params = vpg.init(vpg.Config(network=Torso()), env, jax.random.key(0)).pi_params
    assert params["mean"]["body"]["Dense_0"]["kernel"].shape == (3, 8)
    assert params["log_std"].shape == (1,)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("own") / "run"
    purejaxrl.train("dqn", network=Torso(), out=out, **TINY)
    return out


def test_run_folders_hold_a_label_and_ask_for_the_module(trained, capsys):
    assert json.loads((trained / "config.json").read_text())["config"]["network"] == "custom: Torso"
    returns = purejaxrl.evaluate(trained, network=Torso(), episodes=3)
    assert len(returns) == 3
    assert purejaxrl.export(trained, network=Torso())[0].exists()
    for function in (purejaxrl.evaluate, purejaxrl.export, purejaxrl.resume):
        with pytest.raises(InputError, match="network 'Torso' is an object of your own; give network="):
            function(trained)
    with pytest.raises(InputError, match=r"Torso\(width=16\) was given, and config.json names 'Torso'"):
        purejaxrl.evaluate(trained, network=Torso(16))
    assert main(["evaluate", str(trained)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_module_given_in_vain_is_refused():
    content = plain(plan_train("dqn", **TINY).as_dict())
    assert content["config"]["network"] is None
    with pytest.raises(InputError, match=r"config\.json names none, and Torso was given"):
        replan(content, network=Torso())


def test_resuming_with_a_module_is_exact(trained, tmp_path):
    """A larger budget from the checkpoint ends bitwise as one that was larger from the start."""
    whole = purejaxrl.train("dqn", network=Torso(), out=tmp_path / "whole", **{**TINY, "env_steps": 240})
    purejaxrl.resume(trained, network=Torso(), extend=240)
    for name in ("params/last.safetensors", "metrics.csv", "episodes.csv"):
        assert (trained / name).read_bytes() == (whole.path / name).read_bytes()


def test_modules_are_swept_as_all_else(tmp_path):
    networks = [Torso(), Torso(4), Reversed()]
    result = purejaxrl.sweep("vpg", network=networks, epochs=1, steps_per_epoch=40, actors=4, out=tmp_path / "run")
    assert list(result.summary()["network"]) == ["Torso", "Torso(width=4)", "Reversed"]
    assert result.select(network=Torso(4)).runs.tolist() == [1]
    assert list(result.frame()["network"].unique()) == ["Torso", "Torso(width=4)", "Reversed"]
    assert [entry["network"] for entry in result.facts["settings"]] == [f"custom: {show(own)}" for own in networks]
    returns = purejaxrl.evaluate(tmp_path / "run", network=networks[::-1], episodes=2)
    assert len(returns) == 6
    with pytest.raises(InputError, match=r"Torso\(width=4\)"):
        purejaxrl.evaluate(tmp_path / "run", network=[Torso(), Reversed()])
    with pytest.raises(InputError, match="Torso is given twice"):
        purejaxrl.sweep("vpg", network=[Torso(), Torso()])


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(3)(x))


class OneNumber(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x)[:, 0]


class Broken(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ jnp.ones((7, 3))


class Unhashable(nn.Module):
    sizes: tuple = (3,)

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.sizes[0])(x)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Torso, "not the class Torso; give an instance"),
        (3, "it takes a flax.linen.Module, not 3"),
        ("x" * 500, "it takes a flax.linen.Module, not 'x{79}[.]{3}$"),
        (jnp.tanh, "it takes a flax.linen.Module"),
        (Normalised(), "Normalised has batch_stats beside its parameters"),
        (OneNumber(), r"OneNumber makes float32 \[2\] of inputs \[2, 4\]; it must make features \[2, F\]"),
        (Unhashable(sizes=[3]), "Unhashable cannot be hashed"),
    ],
)
def test_what_is_no_network_is_refused_before_anything_compiles(network, words):
    for algorithm in AGENTS:
        with pytest.raises(InputError, match=words) as caught:
            purejaxrl.train(algorithm, network=network, observation_type="default")
        assert "\n" not in str(caught.value)


def test_who_has_an_nnx_module_is_told_how_to_wrap_it():
    from flax import nnx

    class Torso(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            return self.dense(x)

    hint = r"--network: it takes a flax.linen.Module, not Torso of flax.nnx; flax.nnx.bridge.to_linen\(Torso, ...\)"
    for network in (Torso, Torso(nnx.Rngs(0))):
        with pytest.raises(InputError, match=hint) as caught:
            plan_train("vpg", network=network)
        assert "\n" not in str(caught.value)
    plan_train("vpg", network=nnx.bridge.to_linen(Torso))


def test_an_exception_of_the_module_is_kept():
    with pytest.raises(InputError, match="Broken fails for inputs") as caught:
        purejaxrl.train("vpg", network=Broken())
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize("other", [{"hidden_sizes": (8,)}, {"torso": "mlp"}, {"conv_channels": (8,)}])
def test_a_module_takes_the_place_of_our_networks(other):
    with pytest.raises(InputError, match="--network takes their place"):
        purejaxrl.train("vpg", network=Torso(), **other)


def test_no_flag_gives_a_module(capsys):
    assert main(["train", "vpg", "--network", "Torso"]) == 2
    assert "unknown flag --network" in capsys.readouterr().err
    assert "--network" not in training_parser("train", vpg.agent).format_help()
