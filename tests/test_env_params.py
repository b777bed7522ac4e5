"""Parameters of environments: how config.json stores them, and that no others are used."""

import dataclasses
import json
from typing import Any, NamedTuple

import gymnax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from probes import Probe, ProbeParams

import purejaxrl
from purejaxrl.cli import main
from purejaxrl.envs import gymnax_params, make
from purejaxrl.errors import InputError
from purejaxrl.experiment.plan import plan_train
from purejaxrl.experiment.plan_from_config import objects_of, replan
from purejaxrl.storage.files import plain

SMALL = {"epochs": 2, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 2, "hidden_sizes": (4,)}
CARTPOLE, DEFAULTS = gymnax.make("CartPole-v1")
SHORT = DEFAULTS.replace(max_steps_in_episode=7)


def config_of(**arguments):
    """config.json as it is read again."""
    return json.loads(json.dumps(plain(plan_train("vpg", **SMALL, **arguments).as_dict())))


def start_of(env_params, env="CartPole-v1"):
    """What decides the environment of a Plan."""
    return replan(config_of(env=env, env_params=env_params)).settings[0].env.step.args[1]


def test_parameters_that_are_no_record_are_compared_as_a_whole():
    """As of an environment whose parameters are an array or a plain tuple."""
    one, other = np.array([1.0, 2.0]), np.array([1.0, 3.0])
    gymnax_params.check_same(one, one.copy())
    with pytest.raises(InputError, match=r"env_params: .* was given, and config\.json has"):
        gymnax_params.check_same(one, other)
    with pytest.raises(InputError, match=r"was given, and config\.json has"):
        gymnax_params.check_same((1.0, 2.0), (1.0, 2.0, 3.0))
    with pytest.raises(InputError, match="env takes no values by name, as its parameters are ndarray"):
        gymnax_params.replace("env", one, {"x": 1})
    assert gymnax_params.plain_values(one, one) is None
    assert gymnax_params.plain_values(SHORT, ProbeParams()) is None


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Of an object: episodes of 7 steps at most, which a policy that has learned nothing reaches."""
    out = tmp_path_factory.mktemp("short") / "run"
    return purejaxrl.train("vpg", env=CARTPOLE, env_params=SHORT, out=out, **SMALL)


def test_what_is_loaded_plays_with_the_parameters_of_the_training(short):
    assert json.loads((short.path / "config.json").read_text())["env_params"] == dataclasses.asdict(SHORT)
    for objects in ({}, {"env_params": SHORT}, {"env_params": {"max_steps_in_episode": 7.0}}):
        returns = purejaxrl.evaluate(short.path, env=CARTPOLE, episodes=20, **objects)["return"]
        assert returns.max() <= 7
    assert purejaxrl.load(short.path, env=CARTPOLE).plan.settings[0].env.max_episode_steps == 7
    assert short.evaluate(episodes=20).returns["return"].equals(returns)


def test_other_parameters_than_the_recorded_are_refused(short):
    words = r"env_params: max_steps_in_episode is 500, and in config\.json it is 7"
    for function in (purejaxrl.load, purejaxrl.evaluate, purejaxrl.resume, purejaxrl.export):
        with pytest.raises(InputError, match=words):
            function(short.path, env=CARTPOLE, env_params=DEFAULTS)
    with pytest.raises(InputError, match=r"env_params: gravity is 1\.0, and in config\.json it is 9\.8"):
        purejaxrl.load(short.path, env=CARTPOLE, env_params=SHORT.replace(gravity=1.0))
    with pytest.raises(InputError, match=r"env_params: max_steps_in_episode is 200, and in config\.json it is 7"):
        purejaxrl.load(short.path, env=CARTPOLE, env_params=gymnax.make("Pendulum-v1")[1])
    with pytest.raises(InputError, match=r"env_params: gravity is missing, and in config\.json it is 9\.8"):
        purejaxrl.load(short.path, env=CARTPOLE, env_params=ProbeParams(7))


def test_a_name_needs_nothing_but_the_run_folder(tmp_path, capsys):
    out = tmp_path / "run"
    result = purejaxrl.train("vpg", env="CartPole-v0", env_params={"max_steps_in_episode": 7}, out=out, **SMALL)
    assert result.evaluate(episodes=5).returns["return"].max() <= 7
    assert main(["evaluate", str(out), "--episodes", "5"]) == 0
    assert purejaxrl.load(out).policy()([0.0] * 4) == result.policy()([0.0] * 4)
    assert purejaxrl.load(out).video(tmp_path / "a.gif", max_steps=3).exists()
    assert purejaxrl.resume(out, extend=3).episodes()["length"].max() <= 7
    with pytest.raises(InputError, match="gymnasium plays CartPole-v0 as it is"):
        result.evaluate(backend="gymnasium")
    with pytest.raises(InputError, match=r"env_params: max_steps_in_episode is 8, and in config\.json it is 7"):
        purejaxrl.load(out, env_params={"max_steps_in_episode": 8})


def test_defaults_of_a_name_are_recorded_as_such():
    content = config_of()
    assert content["env_params"] is None
    assert replan(content).options.env_params is None
    assert replan(content, env_params={"max_steps_in_episode": 200}).options.env_params is None
    with pytest.raises(InputError, match=r"max_steps_in_episode is 500, and in config\.json it is 200"):
        replan(content, env_params=DEFAULTS)


@struct.dataclass
class Params:
    """All kinds of values."""

    speed: float = 1.0
    is_windy: bool = False
    kind: str = struct.field(default="calm", pytree_node=False)
    sizes: tuple = struct.field(default=((1, 2), 3.0), pytree_node=False)
    limit: Any = struct.field(default=None, pytree_node=False)
    table: Any = struct.field(default_factory=lambda: jnp.arange(3))
    max_steps_in_episode: int = 10


class Pair(NamedTuple):
    """Parameters, as a NamedTuple."""

    speed: float
    max_steps_in_episode: int


class Sized(Probe):
    """Its observation is how fast it goes."""

    def __init__(self, default=None):
        self.default = Params() if default is None else default
        super().__init__()

    @property
    def default_params(self):
        return self.default

    def transition(self, key, state, action):
        return 1.0, False, state.observation

    def is_truncated(self, state, params):
        limit = params["max_steps_in_episode"] if isinstance(params, dict) else params.max_steps_in_episode
        return state.time >= limit


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"speed": 2, "is_windy": True, "kind": "storm", "sizes": ((5,), 6, "x"), "limit": (1, None)},
        {"speed": np.float32(0.1), "max_steps_in_episode": np.int64(5)},
        {"limit": "a text"},
    ],
)
def test_plain_values_are_found_again(changes):
    params = Params().replace(**changes)
    env = Sized()
    content = config_of(env=env, env_params=params)
    assert "table" not in content["env_params"]
    found = replan(content, env=env).options.env_params
    for name in set(content["env_params"]):
        assert getattr(found, name) == getattr(params, name)
    assert type(found.sizes) is tuple
    np.testing.assert_array_equal(found.table, params.table)
    replan(content, env=env, env_params=params)


@pytest.mark.parametrize("params", [Pair(2.0, 9), {"speed": 2.0, "max_steps_in_episode": 9}])
def test_other_records_are_found_again(params):
    default = type(params)(**{"speed": 1.0, "max_steps_in_episode": 10})
    env = Sized(default)
    content = config_of(env=env, env_params=params, max_ep_len=5)
    assert content["env_params"] == {"speed": 2.0, "max_steps_in_episode": 9}
    assert replan(content, env=env).options.env_params == params
    with pytest.raises(InputError, match=r"env_params: speed is 1\.0, and in config\.json it is 2\.0"):
        replan(content, env=env, env_params=default)


def test_the_defaults_of_an_object_are_those_of_the_training():
    """Whoever changes them in a class of their own, changes nothing of earlier runs."""
    content = config_of(env=Sized())
    assert content["env_params"]["speed"] == 1.0
    assert replan(content, env=Sized(Params(speed=5.0))).options.env_params.speed == 1.0


@pytest.mark.parametrize("changes", [{"table": jnp.ones(3)}, {"speed": float("inf")}, {"limit": object()}])
def test_what_is_not_plain_is_asked_for(changes):
    env, params = Sized(), Params().replace(**changes)
    content = config_of(env=env, env_params=params)
    assert content["env_params"] == "custom: Params"
    with pytest.raises(InputError, match="env_params 'Params' is an object of your own; give env_params="):
        replan(content, env=env)
    assert replan(content, env=env, env_params=params).options.env_params is params
    sent = objects_of(plan_train("vpg", env=env, env_params=params, **SMALL))
    assert sent == {"env": env, "env_params": params}
    assert objects_of(plan_train("vpg", env=CARTPOLE, env_params=SHORT, **SMALL)) == {"env": CARTPOLE}


def before_they_were_recorded(content):
    return {name: value for name, value in content.items() if name not in ("env_params", "schema_version")}


def test_folders_without_env_params(tmp_path, short):
    """They load as before, with a warning if parameters are unknown."""
    content = before_they_were_recorded(config_of(env=CARTPOLE))
    with pytest.warns(UserWarning, match="does not say which env_params CartPole-v1 had; its defaults are used"):
        assert replan(content, env=CARTPOLE).settings[0].env.max_episode_steps == 500
    assert replan(content, env=CARTPOLE, env_params=SHORT).settings[0].env.max_episode_steps == 7
    named = before_they_were_recorded(config_of())
    assert replan(named).settings[0].env.max_episode_steps == 200
    with pytest.raises(InputError, match=r"max_steps_in_episode is 7, and in config\.json it is 200"):
        replan(named, env_params=SHORT)


def test_a_training_of_an_earlier_version_is_resumed(tmp_path, monkeypatch):
    """Whose checkpoint does not have them either."""
    from purejaxrl.experiment import checkpointing, schema
    from purejaxrl.storage import checkpoint

    # Its arrays are those of the present version.
    monkeypatch.setattr(schema, "RENAMED", {})

    out = tmp_path / "run"
    purejaxrl.train("vpg", env=CARTPOLE, env_params=SHORT, out=out, **SMALL)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(before_they_were_recorded(config)))
    found, _ = checkpointing.find(out)
    metadata = json.loads((found.path / "facts.json").read_text())
    metadata["config"] = before_they_were_recorded(metadata["config"])
    (found.path / "facts.json").write_text(json.dumps(metadata))
    sums = [(name, checkpoint._file_hash(found.path / name)) for name in ("arrays.safetensors", "facts.json")]
    (found.path / "SHA256SUMS").write_text(checkpoint._sums_text(sums))
    with pytest.warns(UserWarning, match="schema_version 0 -> "):
        result = purejaxrl.resume(out, env=CARTPOLE, env_params=SHORT, extend=3)
    assert result.frame()["iteration"].max() == 3
    assert json.loads((out / "config.json").read_text())["env_params"]["max_steps_in_episode"] == 7


@pytest.mark.parametrize(
    ("env_params", "words"),
    [
        (object(), r"env_params: <object .* is not allowed; CartPole-v1 takes gymnax.*EnvParams, or a dict"),
        (
            {"gravitation": 1.0},
            "env_params: CartPole-v1 has no 'gravitation'; it has max_steps_in_episode, gravity, masscart",
        ),
        ({"gravity": "low"}, "env_params: CartPole-v1: gravity is 'low'; it must be of the kind of 9.8"),
        (DEFAULTS.replace(max_steps_in_episode="7 or so"), "env_params: CartPole-v1 cannot be reset with them"),
        ({"max_steps_in_episode": 0}, "max_episode_steps is 0; it must be an int from 1"),
        (DEFAULTS.replace(gravity=None), "step.* raised TypeError"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(env_params, words):
    with pytest.raises(InputError, match=words) as caught:
        plan_train("vpg", env="CartPole-v1", env_params=env_params, **SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        (3, "config.json: env_params 3 is neither values by name nor a label"),
        ({"gravity": []}, "config.json: env_params: gravity is \\[\\]; it must be of the kind of 9.8"),
        ({"gravity": {"a": 1}}, "gravity is {'a': 1}; it must be of the kind of 9.8"),
        ({"gravitation": 1}, "config.json: env_params has no 'gravitation'"),
        ({"max_steps_in_episode": 10**400}, "config.json|max_episode_steps|env_params"),
    ],
)
def test_what_was_written_into_config_json_by_others_is_refused(recorded, words):
    with pytest.raises(InputError, match=words):
        replan({**config_of(env="CartPole-v1"), "env_params": recorded})


def test_an_environment_is_made_with_them():
    assert make("CartPole-v0", {"max_steps_in_episode": 9}).max_episode_steps == 9
    assert make("CartPole-v0", SHORT).max_episode_steps == make(CARTPOLE, SHORT).max_episode_steps == 7
    assert make(Sized(), {"max_steps_in_episode": 9}).max_episode_steps == 9
    assert make(Probe(), ProbeParams(), max_ep_len=3).max_episode_steps == 3
