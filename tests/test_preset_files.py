"""Presets from files: what is taken from the best.json of a tune, and what is refused of one."""

import dataclasses
import json
import re

import pytest

import purejaxrl
from purejaxrl.agents import AGENTS, a3c, dqn
from purejaxrl.cli import main
from purejaxrl.components.hyperparameters import Real, config, leaf
from purejaxrl.errors import InputError
from purejaxrl.experiment import schema
from purejaxrl.experiment.labels import is_preset_file, preset_name
from purejaxrl.experiment.plan import plan_sweep, plan_train
from purejaxrl.experiment.plan_from_config import replan
from purejaxrl.experiment.run_config import recorded_of
from purejaxrl.storage.files import plain


@config
class Wider(a3c.Config):
    """A3C's, and one more."""

    beta: Real = leaf(0.5, "something", above=0)


def best_of(agent=a3c.agent, **fields):
    """The content of a best.json with these hyperparameters, and otherwise the defaults."""
    return {
        "schema_version": schema.SCHEMA_VERSION,
        "algorithm": agent.name,
        "env": "CartPole-v1",
        "observation_type": "default",
        "hyperparameters": plain(dataclasses.asdict(agent.Config(**fields))),
        "found_by": {"method": "halving", "objective": "final_return", "settings": 256, "seeds": 8, "score": 480.0},
    }


def written(folder, content):
    folder.mkdir(exist_ok=True)
    path = folder / "best.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


FOUND = {"lr": 0.0034, "hidden_sizes": (16, 8), "t_max": 20, "episodes": None, "env_steps": 4000}


@pytest.fixture
def path(tmp_path):
    return written(tmp_path / "mine", best_of(**FOUND))


def config_of(plan):
    return plan.settings[0].config


def test_its_hyperparameters_and_budget_are_taken(path):
    for preset in (path, str(path)):
        plan = plan_train("a3c", env="CartPole-v1", preset=preset)
        assert config_of(plan) == a3c.Config(**FOUND)
        assert plan.options.preset == str(path)
    assert plan.labels == ["mine"]


def test_what_the_user_gives_goes_before_it(path):
    plan = plan_train("a3c", env="CartPole-v1", preset=path, lr=0.5, episodes=7)
    assert config_of(plan) == a3c.Config(**{**FOUND, "lr": 0.5, "episodes": 7, "env_steps": None})
    swept = plan_sweep("a3c", env="CartPole-v1", preset=path, gamma=[0.9, 0.8])
    assert [setting.config for setting in swept.settings] == [a3c.Config(**FOUND, gamma=gamma) for gamma in (0.9, 0.8)]


def test_its_observations_are_taken(tmp_path):
    """DQN's preset original observes images, and this file does not; the other one does."""
    path = written(tmp_path, best_of(dqn.agent, episodes=3))
    plan = plan_train("dqn", env="CartPole-v1", preset=path)
    assert (plan.options.observation_type, config_of(plan).image) == ("default", None)
    images = {"image": "stack", "image_size": (8, 60), "channels": 1}
    path = written(tmp_path, {**best_of(dqn.agent, episodes=3, **images), "observation_type": "img"})
    plan = plan_train("dqn", env="CartPole-v1", preset=path)
    assert plan.options.observation_type == "img"
    assert config_of(plan) == dqn.Config(episodes=3, **images)


def test_the_other_rule_of_a_pair_gives_way(tmp_path):
    path = written(tmp_path, best_of(dqn.agent, target_update_steps=512))
    found = config_of(plan_train("dqn", env="CartPole-v1", preset=path, target_update=5))
    assert (found.target_update, found.target_update_steps) == (5, None)


def test_fields_that_are_missing_train_as_before(tmp_path):
    """`before` of a field that is newer than the file, else the default; whole numbers may be written as floats."""
    content = best_of() | {"hyperparameters": {"lr": 0.5, "env_steps": 4e3}}
    found = config_of(plan_train("a3c", env="CartPole-v1", preset=written(tmp_path, content)))
    assert found == a3c.Config(lr=0.5, episodes=None, env_steps=4000)
    del content["hyperparameters"]["env_steps"]
    assert config_of(plan_train("a3c", env="CartPole-v1", preset=written(tmp_path, content))) == a3c.Config(lr=0.5)
    old = {**content, "schema_version": 0}
    assert config_of(plan_train("a3c", env="CartPole-v1", preset=written(tmp_path, old))) == a3c.Config(lr=0.5)


def test_it_goes_with_the_config_whatever_the_agent_is_called(path, tmp_path):
    own = a3c.agent._replace(name="mine", Config=Wider)
    assert config_of(plan_train(own, env="CartPole-v1", preset=path)) == Wider(**FOUND)
    other = written(tmp_path / "other", {**best_of(own, beta=0.25), "algorithm": "custom: mine"})
    assert config_of(plan_train(own, env="CartPole-v1", preset=other)) == Wider(beta=0.25)
    with pytest.raises(InputError, match=r"best.json holds hyperparameters of mine, not of a3c"):
        plan_train("a3c", env="CartPole-v1", preset=other)


def test_a_network_of_ones_own_is_given_again(tmp_path):
    content = best_of()
    content["hyperparameters"]["network"] = "custom: Torso(width=16)"
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=r"network 'Torso\(width=16\)' is an object of your own; give network="):
        plan_train("a3c", env="CartPole-v1", preset=path)
    import flax.linen as nn

    network = nn.Dense(4)
    assert config_of(plan_train("a3c", env="CartPole-v1", preset=path, network=network)) == a3c.Config(network=network)


def test_another_environment_is_a_warning(path, capsys):
    with pytest.warns(UserWarning, match=r"best.json was found on CartPole-v1, and trains on Acrobot-v1 here"):
        assert plan_train("a3c", env="Acrobot-v1", preset=path).env == "Acrobot-v1"
    assert main(["train", "a3c", "--env", "Acrobot-v1", "--preset", str(path), "--dry_run"]) == 0
    assert capsys.readouterr().err == f"purejaxrl: {path} was found on CartPole-v1, and trains on Acrobot-v1 here\n"


def changed(**fields):
    return {**best_of(), **fields}


def with_field(**fields):
    return {**best_of(), "hyperparameters": {**best_of()["hyperparameters"], **fields}}


DAMAGED = [
    ("{", "cannot read .*: Expecting property name"),
    ("[1]", "cannot read .*: it holds no JSON object"),
    ("{}", "is no best.json of a tune: schema_version is missing"),
    (changed(schema_version=True), "is no best.json of a tune: schema_version is True"),
    (changed(schema_version=99), "its schema_version is 99, and this version of the package reads 0 to"),
    (changed(schema_version=-1), "its schema_version is -1"),
    (changed(algorithm="dqn"), "holds hyperparameters of dqn, not of a3c"),
    (changed(env=None), "is no best.json of a tune: env is None"),
    (changed(observation_type="text"), "observation_type is 'text'"),
    (changed(observation_type="img"), "image None contradicts its observation_type img"),
    (with_field(image="stack"), "image 'stack' contradicts its observation_type default"),
    (changed(hyperparameters=[]), r"hyperparameters is \[\]"),
    (with_field(lrr=1), "a3c has no hyperparameter 'lrr'"),
    (with_field(lr="fast"), "lr: 'fast' is not allowed; it takes a finite number above 0"),
    (with_field(lr=float("nan")), "lr: nan is not allowed"),
    (with_field(t_max=2.5), "t_max: 2.5 is not allowed; it takes a whole number at least 1"),
    (with_field(hidden_sizes=32), "hidden_sizes: 32 is not allowed; it takes a tuple"),
    (with_field(hidden_sizes=[[1], 2]), "hidden_sizes: "),
    (with_field(mode="asink"), "mode: 'asink' is not allowed; it takes one of async, sync"),
    (with_field(network={}), "network '{}' is an object of your own"),
]


@pytest.mark.parametrize(("content", "said"), DAMAGED)
def test_what_is_no_best_json_of_the_algorithm_is_refused(content, said, tmp_path, capsys):
    path = written(tmp_path, content)
    assert main(["train", "a3c", "--env", "CartPole-v1", "--preset", str(path), "--dry_run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"--preset: .*{said}", line)
    assert str(path) in line


def test_other_wrong_presets_are_refused(path, tmp_path, capsys):
    for words, said in (
        (["--preset", str(tmp_path / "none.json")], "--preset: cannot read .*none.json: No such file"),
        (["--preset", "none.json"], "--preset: cannot read none.json: No such file"),
        (["--preset", "a,b.json"], "--preset: cannot read a,b.json: No such file"),
        (["--preset", str(path.parent)], "is a folder; give the best.json that a tune has written"),
        (["--preset", "best"], "'best' is unknown; use one of original, tuned, or a file best.json"),
        (["--preset", str(path), "--observation_type", "img"], "--observation_type: 'img' .* was found with default"),
        (["--preset", str(path), "--episodes", "5", "--env_steps", "5"], "are two budgets"),
    ):
        for command in ("train", "sweep"):
            assert main([command, "a3c", "--env", "CartPole-v1", *words, "--dry_run"]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert re.search(said, line), line


def test_names_of_presets():
    names = {
        "tuned": "tuned",
        "results/mine/best.json": "mine",
        "best.json": "best",
        "../best.json": "best",
        "fast.json": "fast",
        "results/fast": "fast",
        "/best.json": "best",
    }
    assert {preset: preset_name(preset) for preset in names} == names
    assert [preset for preset in names if not is_preset_file(preset)] == ["tuned"]


def test_the_run_folder_is_named_after_it(path, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command, start in (("train", ""), ("sweep", "sweep-")):
        words = [command, "a3c", "--env", "CartPole-v1", "--preset", "mine/best.json", "--dry_run"]
        assert main(words) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["out"], shown["preset"]) == (f"results/{start}a3c-CartPole-v1-mine", "mine/best.json")


def test_a_run_folder_does_without_the_file(path, tmp_path):
    """It is trained, resumed and shown with what config.json holds."""
    small = {"hidden_sizes": (4,), "actors": 2, "env_steps": 200, "checkpoint_every": 5.0}
    out = tmp_path / "run"
    before = purejaxrl.train("a3c", env="CartPole-v1", preset=path, **small, out=out)
    path.unlink()
    content = json.loads((out / "config.json").read_text())
    assert content["preset"] == str(path)
    assert content["config"]["lr"] == FOUND["lr"]
    assert config_of(replan(content)) == config_of(before.plan)
    assert recorded_of(content).title == "a3c on CartPole-v1, mine"
    assert recorded_of(content).labels == ["mine"]
    resumed = purejaxrl.resume(out, extend=400)
    assert resumed.summary_json["env_steps"] == 400
    assert resumed.summary_json["preset"] == str(path)
    assert purejaxrl.load(out).plan.labels == ["mine"]


def test_every_algorithm_reads_what_it_writes(tmp_path):
    for agent in AGENTS.values():
        path = written(tmp_path, best_of(agent))
        assert config_of(plan_train(agent.name, env="CartPole-v1", preset=path)) == agent.Config()
