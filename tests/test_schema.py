"""Run folders of earlier versions, which every later one opens; and what is said of those that a later one wrote."""

import json
import shutil
from pathlib import Path

import pytest

import purejaxrl
from purejaxrl.agents import AGENTS, vpg
from purejaxrl.cli import main
from purejaxrl.components.hyperparameters import Real, config, field_specs, leaf
from purejaxrl.errors import CheckpointError, InputError
from purejaxrl.experiment import schema
from purejaxrl.experiment.options import Options
from purejaxrl.experiment.plan import plan_train
from purejaxrl.experiment.plan_from_config import check_same, replan, unknown_names, up_to_date
from purejaxrl.experiment.run_config import recorded_of
from purejaxrl.storage.files import plain

KEPT = sorted(path.parent for path in (Path(__file__).parent / "folders").glob("*/*/config.json"))
# The others are of the same code.
SLOW = ("dqn-images", "a3c", "dqn", "sweep", "vpg")
VPG = next(path for path in KEPT if path.name == "vpg")
TINY = {"epochs": 2, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 2, "hidden_sizes": (4,)}
# Larger budgets than the kept folders had; the others have none or were cut into batches.
LARGER = {"vpg": 4, "a3c": 8, "dqn": 120, "dqn-images": 120}


def name_of(path):
    return f"{path.parent.name}/{path.name}"


def content_of(path):
    return json.loads((path / "config.json").read_text())


def files_of(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def gain(monkeypatch, **before):
    """Give every algorithm the hyperparameter `weight`."""
    for name, agent in list(AGENTS.items()):
        fields = {"__annotations__": {"weight": Real}, "weight": leaf(0.5, "new", **before)}
        monkeypatch.setitem(AGENTS, name, agent._replace(Config=config(type("Config", (agent.Config,), fields))))


def play(path, tmp_path):
    """Open a run folder in every way that only reads it."""
    result = purejaxrl.load(path)
    assert len(result.frame()) == len((path / "metrics.csv").read_text().splitlines()) - 1
    assert len(result.episodes()) == len((path / "episodes.csv").read_text().splitlines()) - 1
    assert len(result.summary()) == len(result.config.settings)
    assert len(result.evaluate(episodes=2).returns) == 2 * len(result)
    out = str(tmp_path / "curves.png")
    assert main(["plot", str(path), "--out", out]) == 0
    assert main(["export", str(path), "--out", str(tmp_path / "export")]) == 0
    other = VPG if path != VPG else KEPT[0]
    if result.config.observation_type != purejaxrl.load(other).config.observation_type:
        other = shutil.copytree(path, tmp_path / "other")
    assert main(["compare", str(path), str(other)]) == 0
    assert result.video(tmp_path / "video.gif", max_steps=3).stat().st_size > 0
    if (path / "params" / "best.safetensors").exists():
        assert len(result.evaluate(episodes=2, params="best").returns) == 2 * len(result)
    return result


@pytest.mark.parametrize(
    "is_gaining", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["one more", "as it is"]
)
@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=pytest.mark.slow if path.name in SLOW else ()) for path in KEPT], ids=name_of
)
def test_kept_folders_open_in_every_way(path, is_gaining, tmp_path, monkeypatch):
    """By a package that has one more hyperparameter, and by the one at hand."""
    if is_gaining:
        # It had another effect before it could be set than its default has.
        gain(monkeypatch, before=2.0)
    before, version = files_of(path), content_of(path).get("schema_version", 0)
    result = play(path, tmp_path)
    assert all(getattr(setting.config, "weight", 2.0) == 2.0 for setting in result.plan.settings)
    assert files_of(path) == before
    run = shutil.copytree(path, tmp_path / "run")
    assert main(["plot", str(run)]) == 0
    with pytest.warns(UserWarning, match=f"versions differ.*schema_version {version} -> {schema.SCHEMA_VERSION}"):
        resumed = purejaxrl.resume(run, extend=LARGER.get(path.name))
    rows = (run / "metrics.csv").read_bytes()
    assert rows.startswith(before[Path("metrics.csv")])
    assert resumed.stopped_by is None
    # A sweep has nothing left to do, so its files stay as they are.
    if path.name != "sweep":
        assert len(rows) > len(before[Path("metrics.csv")])
        assert content_of(run)["schema_version"] == schema.SCHEMA_VERSION
        assert content_of(run)["config"].get("weight", 2.0) == 2.0
    assert len(purejaxrl.load(run).summary()) == len(result.summary())


def test_there_is_a_kept_folder_of_every_kind():
    """Of each algorithm, so that the test below knows which hyperparameters it had."""
    assert {content_of(path)["algorithm"] for path in KEPT} == set(AGENTS), (
        "keep a folder of it: tests/folders/README.md"
    )
    assert {content_of(path)["observation_type"] for path in KEPT} == {"default", "img"}
    assert "settings" in content_of(VPG.parent / "sweep")
    assert json.loads((VPG.parent / "interrupted" / "summary.json").read_text())["stopped_by"] == "SIGTERM"
    assert sum(len(content) for path in KEPT for content in files_of(path).values()) < 600_000


def undeclared():
    """Names that a Config or the options have and migrated folders have not, or the other way round."""
    found, now = set(), plan_train("vpg", **TINY).as_dict().keys()
    for path in KEPT:
        content = schema.migrate(content_of(path))
        agent = AGENTS[content["algorithm"]]
        recorded = {*content["config"], *content.get("settings", [{}])[0]}
        specs = field_specs(agent.Config)
        declared = {name for name, spec in specs.items() if spec.before is not ...}
        found |= {f"{agent.name}: {name}" for name in recorded ^ specs.keys() if name not in declared}
        # What version 0 recorded of processes is looked at, and of no use any more.
        added = {name for name, spec in field_specs(Options).items() if spec.before is not ...}
        found |= (now - added) ^ (content.keys() - {"swept", "settings", "processes"})
    return sorted(found)


ADVICE = "older run folders do not say what these were: declare it by before="


def test_every_hyperparameter_and_option_is_declared():
    assert undeclared() == [], ADVICE


def test_a_hyperparameter_that_older_folders_lack_is_noticed(monkeypatch):
    gain(monkeypatch)
    assert undeclared() == ["a3c: weight", "dqn: weight", "vpg: weight"]
    with pytest.raises(InputError, match=r"config\.json: weight is missing among vpg's fields"):
        _ = purejaxrl.load(VPG).plan


def test_migrating_leaves_what_it_is_given_as_it_is():
    for path in KEPT:
        content = content_of(path)
        migrated = schema.migrate(content)
        assert content == content_of(path)
        assert schema.migrate(migrated) == migrated
        same = content.keys() - {"config", "schema_version"}
        assert {name: migrated[name] for name in same} == {name: content[name] for name in same}


def test_earlier_folders_of_version_0_lack_more():
    """As they were before image observations, checkpoints and networks of one's own."""
    content = content_of(VPG.parent / "sweep")
    whole = schema.migrate(content)
    for name in ("renderer", "checkpoint_every", "fail_on_nan", "swept"):
        del content[name]
    for name in ("reward_scale", "normalize_observations", "image", "frames", "network"):
        del content["config"][name]
    assert schema.migrate(content) == whole
    assert [setting.values for setting in replan(content).settings] == recorded_of(content).settings


def test_a_swept_hyperparameter_is_not_filled_in():
    content = {"config": {"b": 1}, "settings": [{"a": 1}, {"a": 2}]}
    assert schema.with_hyperparameters(content, {"a": 3, "b": 4, "c": 5}) == {**content, "config": {"b": 1, "c": 5}}


@pytest.fixture
def folder(tmp_path):
    """A copy of a kept one, whose config.json may be edited."""
    return shutil.copytree(VPG, tmp_path / "run")


def edit(folder, options=None, hyperparameters=None):
    content = content_of(folder)
    content |= options or {}
    content["config"] |= hyperparameters or {}
    content["versions"]["purejaxrl"] = "0.9.0"
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "words", [["evaluate"], ["export"], ["resume"], ["resume", "--dry_run"], ["plot"], ["video"]], ids=" ".join
)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            ({"schema_version": 9, "tempo": 1}, {"clip": 0.2}),
            "config.json: schema_version is 9, as purejaxrl '0.9.0' wrote it; this version reads up to 2, and does not "
            "know 'tempo', 'clip'",
        ),
        (
            ({"schema_version": 9, "algorithm": "ppo"},),
            "config.json: schema_version is 9, as purejaxrl '0.9.0' wrote it; this version reads up to 2",
        ),
        (({"schema_version": -1},), "config.json: schema_version -1 is not allowed; it is a whole number from 0 to 2"),
        (({"schema_version": True},), "config.json: schema_version True is not allowed; it is a whole number from 0 "),
        (({"schema_version": "\n"},), "config.json: schema_version '\\n' is not allowed; it is a whole number from 0 "),
    ],
    ids=["newer, with fields", "newer", "negative", "not whole", "a text"],
)
def test_what_a_newer_version_wrote_is_one_line(folder, fields, said, words, capsys):
    edit(folder, *fields)
    before = files_of(folder)
    assert main([words[0], str(folder), *words[1:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"purejaxrl: {said}")
    assert error.count("\n") == 1
    assert files_of(folder) == before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (({"tempo": 1},), "this version does not know 'tempo'; purejaxrl '0.9.0' wrote it"),
        (({"tempo": 1}, {"clip": 0.2}), "this version does not know 'tempo', 'clip'; purejaxrl '0.9.0' wrote it"),
        (({"algorithm": "ppo"},), "algorithm 'ppo', of purejaxrl '0.9.0', is not one of vpg, a3c, dqn"),
    ],
    ids=["an option", "both", "an algorithm"],
)
def test_unknown_fields_are_named_with_the_version_that_wrote_them(folder, fields, said, capsys):
    edit(folder, *fields)
    for words in (["evaluate", str(folder)], ["resume", str(folder), "--dry_run"]):
        assert main(words) == 2
        assert capsys.readouterr().err == f"purejaxrl: config.json: {said}\n"


def test_who_wrote_it_may_be_unknown():
    for versions in (None, {}, {"purejaxrl": 3}):
        assert schema.writer({"versions": versions}) == "purejaxrl of an unknown version"
    assert unknown_names({"config": 3, "settings": 4}, vpg.agent) == []


def test_a_checkpoint_of_a_newer_version_is_refused(folder, monkeypatch):
    from purejaxrl.storage import checkpoint as disk

    found, _ = disk.newest(folder / "checkpoints")
    newer = {**found.metadata, "config": {**found.metadata["config"], "schema_version": 9}}
    monkeypatch.setattr(disk, "newest", lambda _: (found._replace(metadata=newer), []))
    with pytest.raises(CheckpointError, match=r"000001: config\.json: schema_version is 9"):
        purejaxrl.resume(folder)


@config
class Own(vpg.Config):
    """A Config of a user's own."""

    temperature: Real = leaf(1.0, "new", above=0)


def test_custom_agents_may_gain_hyperparameters(monkeypatch):
    """What a built-in Config gains comes from the schema; what their own gains has its default, and a warning."""
    agent = vpg.agent._replace(name="mine")
    content = json.loads(json.dumps(plain(plan_train(agent, **TINY).as_dict())))
    grown = agent._replace(Config=Own)
    with pytest.warns(UserWarning, match="does not say what mine had here; its defaults are used: temperature 1.0"):
        plan = replan(content, agent=grown)
    assert plan.settings[0].config.temperature == 1.0
    with pytest.warns(UserWarning, match="temperature 1.0"):
        check_same(plan, up_to_date(content, grown))
    replan(json.loads(json.dumps(plain(plan.as_dict()))), agent=grown)
    gain(monkeypatch, before=2.0)
    plan = replan(content, agent=AGENTS["vpg"]._replace(name="mine"))
    assert plan.settings[0].config.weight == 2.0
    check_same(plan, up_to_date(content, plan.agent))


def test_new_folders_have_the_present_version():
    content = json.loads(json.dumps(plain(plan_train("vpg", **TINY).as_dict())))
    assert content["schema_version"] == schema.SCHEMA_VERSION == len(schema.MIGRATIONS)
    assert schema.migrate(content) == content
