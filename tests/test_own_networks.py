"""Networks of a user's own: any Flax module that makes features, with heads, run folders and errors as the rest."""

import json

import chex
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
from purejaxrl.components.networks import check_body, check_network
from purejaxrl.errors import InputError
from purejaxrl.experiment.labels import show
from purejaxrl.experiment.plan import plan_train
from purejaxrl.experiment.plan_from_config import replan
from purejaxrl.storage.files import plain
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
    params = dqn.init(config, cartpole, jax.random.key(0)).params.q
    assert jax.tree.map(jnp.shape, params) == {
        "body": {"Dense_0": {"kernel": (4, 8), "bias": (8,)}},
        "head": {"kernel_0": (8, 2), "bias_0": (2,)},
    }
    q_value = dqn.q_values(config, cartpole, params, observation)
    np.testing.assert_allclose(q_value, by_hand(params, observation), rtol=1e-5)

    config = vpg.Config(network=Torso(6))
    learner = vpg.init(config, cartpole, jax.random.key(0))
    value = vpg.state_value(config, cartpole, learner.params.v, observation)
    np.testing.assert_allclose(value, by_hand(learner.params.v, observation)[:, 0], rtol=1e-5)
    pi, v = (params["body"]["Dense_0"]["kernel"] for params in (learner.params.pi, learner.params.v))
    assert np.abs(pi - v).min() > 1e-6

    theta = a3c.init(a3c.Config(network=Torso()), cartpole, jax.random.key(0)).params
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
    step, _ = adam.update(jax.grad(loss)(learner.params.v), adam.init(learner.params.v))
    expected = optax.apply_updates(learner.params.v, step)
    chex.assert_trees_all_close(after.params.v, expected, atol=1e-4)


def test_gaussian_policies_have_the_module_beneath_their_mean():
    env = purejaxrl.make("Pendulum-v1")
    params = vpg.init(vpg.Config(network=Torso()), env, jax.random.key(0)).params.pi
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


@pytest.mark.slow
def test_resuming_with_a_module_is_exact(trained, tmp_path):
    """A larger budget from the checkpoint ends bitwise as one that was larger from the start."""
    whole = purejaxrl.train("dqn", network=Torso(), out=tmp_path / "whole", **{**TINY, "env_steps": 240})
    purejaxrl.resume(trained, network=Torso(), extend=240)
    for name in ("params/last.safetensors", "metrics.csv", "episodes.csv"):
        assert (trained / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.slow
def test_modules_are_swept_as_all_else(tmp_path):
    networks = [Torso(), Torso(4), Reversed()]
    result = purejaxrl.sweep("vpg", network=networks, epochs=1, steps_per_epoch=40, actors=4, out=tmp_path / "run")
    assert list(result.summary().sort_values("setting")["network"]) == ["Torso", "Torso(width=4)", "Reversed"]
    assert result.select(network=Torso(4)).runs.tolist() == [1]
    assert list(result.frame()["network"].unique()) == ["Torso", "Torso(width=4)", "Reversed"]
    assert [entry["network"] for entry in result.summary_json["settings"]] == [
        f"custom: {show(own)}" for own in networks
    ]
    returns = purejaxrl.evaluate(tmp_path / "run", network=networks[::-1], episodes=2)
    assert len(returns) == 6
    with pytest.raises(InputError, match=r"Torso\(width=4\)"):
        purejaxrl.evaluate(tmp_path / "run", network=[Torso(), Reversed()])
    with pytest.raises(InputError, match="Torso is given twice"):
        purejaxrl.sweep("vpg", network=[Torso(), Torso()])


class Normalized(nn.Module):
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
        (Normalized(), "Normalized has batch_stats beside its parameters"),
        (OneNumber(), r"OneNumber makes float32 \[2\] of inputs \[2, 4\]; it must make features \[2, F\]"),
        (Unhashable(sizes=[3]), "Unhashable cannot be hashed"),
    ],
)
def test_what_is_no_network_is_refused_before_anything_compiles(network, words):
    for algorithm in AGENTS:
        with pytest.raises(InputError, match=words) as caught:
            purejaxrl.train(algorithm, network=network, observation_type="default")
        assert "\n" not in str(caught.value)


def test_the_error_for_nnx_modules_says_how_to_wrap_them():
    from flax import nnx

    class Torso(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            return self.dense(x)

    hint = r"network: it takes a flax.linen.Module, not Torso of flax.nnx; flax.nnx.bridge.to_linen\(Torso, ...\)"
    for network in (Torso, Torso(nnx.Rngs(0))):
        with pytest.raises(InputError, match=hint) as caught:
            plan_train("vpg", network=network)
        assert "\n" not in str(caught.value)
    plan_train("vpg", network=nnx.bridge.to_linen(Torso))


def plain_function(function, features=6, **options):
    """A module that applies a function to inputs and then a layer, as `function(self, layer, x)`."""

    class Made(nn.Module):
        @nn.compact
        def __call__(self, x):
            return function(self, nn.Dense(features, **options), x)

    return Made()


def hidden_by_a_gate(self, layer, x):
    return layer(x) + self.param("gate", nn.initializers.zeros, ()) * x.mean(keepdims=True)


ZEROS = {"kernel_init": nn.initializers.zeros}
MIXING = {
    "batch as time": nn.RNN(nn.GRUCell(6)),
    "batch as time, backwards": nn.RNN(nn.SimpleCell(6), reverse=True),
    "attention over the batch": nn.MultiHeadDotProductAttention(2, qkv_features=4),
    "mean": plain_function(lambda _, layer, x: layer(x - x.mean(0)[None])),
    "a little of the mean": plain_function(lambda _, layer, x: layer(x + 0.001 * x.mean(0)[None])),
    "mean of what must be positive": plain_function(lambda _, layer, x: layer(jnp.log(x) - jnp.log(x).mean(0)[None])),
    "mean of categories": plain_function(lambda _, layer, x: layer(x.round() - x.round().mean(0)[None])),
    "spread": plain_function(lambda _, layer, x: layer(x) / (layer(x).std(0)[None] + 1e-5)),
    "softmax over the batch": plain_function(lambda _, layer, x: nn.softmax(layer(x), axis=0)),
    "sorted": plain_function(lambda _, layer, x: jnp.sort(layer(x), axis=0)),
    "reversed rows": plain_function(lambda _, layer, x: layer(x)[::-1]),
    "layer norm over everything": plain_function(lambda _, layer, x: nn.LayerNorm(reduction_axes=(0, 1))(layer(x))),
    "hidden by a last layer of zeros": plain_function(
        lambda _, layer, x: layer(jnp.tanh(x - x.mean(0)[None])), **ZEROS
    ),
    "hidden by a gate of zero": plain_function(hidden_by_a_gate),
}
BY_PLACE = {
    "number of the row": plain_function(lambda _, layer, x: layer(x) + jnp.arange(len(x))[:, None]),
    "noise by row": plain_function(lambda _, layer, x: layer(x + jax.random.normal(jax.random.key(1), x.shape))),
}


@pytest.mark.parametrize("name", MIXING)
def test_networks_that_mix_rows_are_refused(name):
    with pytest.raises(InputError, match=f"^network: {type(MIXING[name]).__name__} mixes the rows of a batch"):
        check_body(MIXING[name], (4,))


@pytest.mark.parametrize("name", BY_PLACE)
def test_networks_that_tell_rows_apart_by_their_place_are_refused(name):
    with pytest.raises(InputError, match=r"^network: Made tells the rows of a batch apart"):
        check_body(BY_PLACE[name], (4,))


def over_features(_, layer, x):
    """Attention and recurrence within an observation are nobody else's business."""
    inside = nn.RNN(nn.GRUCell(4))(x[..., None])
    return layer(nn.MultiHeadDotProductAttention(2, qkv_features=4)(inside).reshape(len(x), -1))


def steps(_, layer, x):
    """What rounding would tip over."""
    return jnp.sign(nn.Dense(64)(jnp.sign(layer(x))))


def deep(_, layer, x):
    x = layer(x)
    for _ in range(6):
        x = x + nn.relu(nn.Dense(6, dtype=jnp.bfloat16)(nn.LayerNorm(dtype=jnp.bfloat16)(x)))
    return x


HONEST = {
    "a layer": Torso(),
    "a layer that starts at zero": plain_function(lambda _, layer, x: layer(jnp.tanh(x)), **ZEROS),
    "nothing at all": plain_function(lambda _, layer, x: 0.0 * layer(x)),
    "attention and recurrence inside": plain_function(over_features),
    "steps": plain_function(steps),
    "deep, in bfloat16": plain_function(deep),
    "NaN of negative inputs": plain_function(lambda _, layer, x: layer(jnp.log(x))),
    "very large": plain_function(lambda _, layer, x: jnp.exp(30 * layer(x))),
    "categories": plain_function(lambda _, __, x: nn.Embed(9, 6)(x[:, 0].astype(int))),
    "weight norm": plain_function(lambda _, layer, x: nn.WeightNorm(layer)(x)),
    "a tuple of layers": nn.Sequential((nn.Dense(8), nn.tanh, nn.Dense(4))),
}


@pytest.mark.parametrize("name", HONEST)
def test_networks_that_take_every_row_for_itself_are_not_refused(name):
    check_body(HONEST[name], (4,))


def test_convolutions_are_not_refused():
    check_body(plain_function(lambda _, layer, x: layer(nn.Conv(4, (3, 3))(x).mean((1, 2)))), (8, 8, 3))


def test_rows_are_checked_inside_transformations_too():
    """As when a training is differentiated; also with JAX's checks for NaN and the like."""

    def slope(lr, network):
        config = vpg.Config(network=network, epochs=1, steps_per_epoch=8, actors=2, train_v_iters=1, pi_lr=lr)
        train = purejaxrl.make_train(vpg.agent, config, purejaxrl.make("CartPole-v0"))
        return train(jax.random.key(0))[1].metrics["pi_loss"][-1]

    log = plain_function(lambda _, layer, x: layer(jnp.log(jnp.abs(x))))
    with jax.debug_nans(True):
        jax.eval_shape(jax.grad(lambda lr: slope(lr, log)), 1e-2)
    mixing = plain_function(lambda _, layer, x: layer(x - x.mean(0)[None]))
    with pytest.raises(InputError, match="mixes the rows"):
        jax.eval_shape(jax.grad(lambda lr: slope(lr, mixing)), 1e-2)
    with jax.enable_x64(True), pytest.raises(InputError, match="mixes the rows"):
        check_body(mixing, (4,))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Dense(8, param_dtype=jnp.bfloat16), "a parameter bias of bfloat16; agents learn parameters of float32"),
        (nn.Sequential((nn.Dense(8, param_dtype=jnp.float16),)), "a parameter layers_0/bias of float16"),
        (plain_function(lambda _, layer, x: layer(x.squeeze())), r"makes float32 \[6\] of inputs \[1, 4\]"),
    ],
)
def test_what_would_fail_within_a_training_is_refused_before(network, words):
    with pytest.raises(InputError, match=words) as caught:
        purejaxrl.train("vpg", network=network)
    assert "\n" not in str(caught.value)


def test_layers_may_compute_in_bfloat16(tmp_path):
    network = nn.Dense(8, dtype=jnp.bfloat16)
    result = purejaxrl.train("vpg", network=network, epochs=1, steps_per_epoch=20, actors=2)
    assert {leaf.dtype for leaf in jax.tree.leaves(result.state.learner.params.pi)} == {jnp.dtype("float32")}


def test_an_exception_of_the_module_is_kept():
    with pytest.raises(InputError, match="Broken fails for inputs") as caught:
        purejaxrl.train("vpg", network=Broken())
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize("other", [{"hidden_sizes": (8,)}, {"torso": "mlp"}, {"conv_channels": (8,)}])
def test_a_module_takes_the_place_of_our_networks(other):
    with pytest.raises(InputError, match="network takes their place"):
        purejaxrl.train("vpg", network=Torso(), **other)


def test_no_flag_gives_a_module(capsys):
    assert main(["train", "vpg", "--network", "Torso"]) == 2
    assert "unknown flag --network" in capsys.readouterr().err
    assert "--network" not in training_parser("train", vpg.agent).format_help()


def test_a_network_goes_with_a_config_that_knows_networks():
    @purejaxrl.config
    class Plain:
        """Hyperparameters of an agent that has a network of its own and no images."""

        env_steps: int = purejaxrl.budget(10, "env steps")
        network: object = purejaxrl.static(Torso(), "the network", kind=object)

    with pytest.raises(InputError, match=r"network: it goes with a Config that extends purejaxrl\.ImageConfig"):
        check_network(Plain(), (4,))
