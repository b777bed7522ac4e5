"""Training from Python: the result, the user's own environments, and errors."""

import dataclasses
import inspect
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
from purejaxrl.analysis.evaluation import check_arguments
from purejaxrl.cli import main
from purejaxrl.errors import DivergedError, InputError, PurejaxrlError
from purejaxrl.experiment.options import FOR_RESUMING, FOR_SWEEPS, Options
from purejaxrl.experiment.plan import plan_train
from purejaxrl.experiment.plan_from_config import extend_budget
from purejaxrl.experiment.search import SEEDS, Search
from purejaxrl.storage.run_folder import read_metadata, read_params

TINY = {"episodes": 6, "batch_size": 16, "memory_size": 64, "hidden_sizes": (8,)}
VECTORS = {"observation_type": "default", **TINY}


def test_a_result_holds_state_tables_and_summary(tmp_path):
    result = purejaxrl.train("dqn", seeds=2, out=tmp_path / "run", eval_every=40, eval_episodes=2, **VECTORS)
    assert result.path == tmp_path / "run"
    assert list(result.episodes().groupby("run").size()) == [6, 6]
    assert set(result.frame()["run"]) == {0, 1}
    assert result.state.learner.params.q["kernel_0"].shape == (2, 4, 8)
    best = read_metadata(result.path, "best")["eval_return"]
    np.testing.assert_allclose(best, result.frame().groupby("run")["eval_return"].max(), rtol=1e-6)
    # Whichever run ends later, each is evaluated at its own end, and no more.
    assert result.frame().groupby("run")["eval_return"].last().notna().all()
    assert result.curve.exists()
    saved = read_params(result.path, "last")
    np.testing.assert_array_equal(saved["q/kernel_0"], result.state.learner.params.q["kernel_0"])


@pytest.mark.slow
def test_a3c_leaves_the_histogram_of_its_delays(tmp_path):
    settings = {"actors": 4, "t_max": 5, "env_steps": 400, "hidden_sizes": (8,)}
    result = purejaxrl.train("a3c", seeds=2, out=tmp_path / "run", log_every=100, **settings)
    # Twenty rounds of four; in the first round the w-th worker waits for w others, afterwards for three.
    assert result.summary_json["delay_histogram"] == {
        "bin_width": 1,
        "counts": {"0": 2, "1": 2, "2": 2, "3": 2 + 2 * 19 * 4},
    }
    assert list(result.frame().query("run == 0")["delay"]) == pytest.approx([(1.5 + 4 * 3) / 5, 3, 3, 3])
    assert (result.path / "delay_histogram.png").stat().st_size > 5000
    assert result.state.learner.extra.theta.pi["kernel_0"].shape == (2, 4, 4, 8)
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
    trained = jax.tree.map(lambda leaf: leaf[0], result.state.learner._replace(memory=None))
    np.testing.assert_allclose(flat(state.learner._replace(memory=None)), flat(trained), atol=1e-5)
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
    assert result.summary_json["algorithm"] == "constant"
    assert result.frame()["q_mean"].iloc[-1] == pytest.approx(7, abs=0.5)


@pytest.mark.slow
def test_best_parameters_do_not_depend_on_batch_mates():
    """Runs end at different times; a run that has ended is not evaluated again while the others go on."""
    settings = {**VECTORS, "eval_every": 10, "eval_episodes": 2, "hidden_sizes": (4,)}
    many = purejaxrl.train("dqn", seeds=3, **settings)
    for seed in range(3):
        alone = purejaxrl.train("dqn", seed=seed, **settings)
        rows = many.frame().query("run == @seed")
        np.testing.assert_array_equal(rows["eval_return"], alone.frame()["eval_return"])
        bests = [read_metadata(result.path, "best")["eval_return"] for result in (many, alone)]
        assert bests[0][seed] == bests[1][0]


@pytest.mark.slow
def test_every_core_works_from_a_fresh_interpreter():
    """Importing the package must not start JAX before its devices were asked for."""
    code = (
        "import os, purejaxrl\n"
        "result = purejaxrl.train('vpg', seeds=2, epochs=1, steps_per_epoch=8, actors=2)\n"
        "print(result.summary_json['devices'], min(2, len(os.sched_getaffinity(0))))"
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
    for name, value in (("random", 3), ("yes", True)):
        with pytest.raises(InputError, match=f"^{name}: {value} is for `sweep`; train takes one setting"):
            purejaxrl.train("dqn", **{name: value})


def test_a_failed_run_is_named(monkeypatch):
    """Rewards of NaN make the learner NaN; the summary says which runs, and how many are well."""

    class Sick(Counter):
        def transition(self, key, state, action):
            return jnp.nan, state.time >= 4, state.observation + 1

    result = purejaxrl.train("vpg", env=Sick(), seeds=2, epochs=2, steps_per_epoch=40, actors=4)
    assert result.summary_json["failed_runs"] == [0, 1]
    assert result.summary_json["runs_ok"] == 0


def test_config_is_a_pytree_whose_leaves_are_the_real_numbers():
    config = dqn.Config()
    leaves, treedef = jax.tree.flatten(config)
    assert sorted(map(float, leaves)) == sorted([0.99, 1e-3, 0.0, 1.0, 0.01, 0.001, 1.0])
    assert jax.tree.unflatten(treedef, leaves) == config


def test_the_public_names():
    assert sorted(purejaxrl.__all__) == [
        "AGENTS",
        "ActorOutput",
        "Agent",
        "Continuous",
        "Discrete",
        "Env",
        "Evaluation",
        "ImageConfig",
        "Images",
        "InputError",
        "Learner",
        "PixelObservation",
        "Progress",
        "Range",
        "Real",
        "Renderer",
        "Result",
        "TensorBoard",
        "Timestep",
        "Transition",
        "Wandb",
        "budget",
        "clear_programs",
        "config",
        "configure",
        "evaluate",
        "export",
        "from_stoa",
        "leaf",
        "load",
        "make",
        "make_train",
        "resume",
        "static",
        "sweep",
        "train",
        "tune",
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
    assert extend_budget(plan.settings[0].config, 2e5).env_steps == 200_000


def keywords_of(function):
    return {name: it for name, it in inspect.signature(function).parameters.items() if it.kind is it.KEYWORD_ONLY}


def test_every_option_is_an_argument_with_its_type_and_default():
    of_output = {"out", "overwrite", "progress", "loggers"}
    options = {field.name: field for field in dataclasses.fields(Options)}
    assert keywords_of(purejaxrl.train).keys() == options.keys() - {*FOR_SWEEPS} | of_output
    assert keywords_of(purejaxrl.sweep).keys() == options.keys() | of_output | {"executor"}
    searching = {field.name: field for field in dataclasses.fields(Search)}
    others = {*searching, *of_output, "executor"}
    assert keywords_of(purejaxrl.tune).keys() == options.keys() - {"random"} | others
    # A search has more than one seed.
    searching["seeds"] = dataclasses.field(default=SEEDS)
    searching["seeds"].type = "int"
    for function, known in ((purejaxrl.train, {}), (purejaxrl.sweep, {}), (purejaxrl.tune, searching)):
        known = options | known
        for name, argument in keywords_of(function).items():
            if name in known:
                # In Python a preset may be a Path; its text is the option.
                type_ = "str | Path" if name == "preset" else known[name].type
                assert (argument.default, argument.annotation) == (known[name].default, type_), name
    # What a training may be resumed with instead, and nothing by default.
    for name in FOR_RESUMING:
        argument = keywords_of(purejaxrl.resume)[name]
        assert argument.default is None
        assert argument.annotation == f"{options[name].type.removesuffix(' | None')} | None"


@pytest.mark.parametrize("function", ["train", "sweep", "tune", "resume", "make_train", "evaluate", "export", "load"])
def test_everything_public_has_types_and_says_what_it_takes(function):
    signature = inspect.signature(getattr(purejaxrl, function))
    assert inspect.Signature.empty not in (
        signature.return_annotation,
        *(it.annotation for it in signature.parameters.values()),
    )
    said = (
        inspect.getdoc(getattr(purejaxrl, function)).partition("Args:\n")[2].partition("\nReturns:\n")[0].splitlines()
    )
    described = [line.split(":")[0].strip("* ") for line in said if line.startswith("    ") and line[4] != " "]
    assert described == [*signature.parameters]


@pytest.mark.parametrize("function", ["train", "sweep", "tune"])
def test_every_option_arrives(function, monkeypatch):
    class PlannedError(Exception):
        """Carries what a Plan was to be made of."""

    def plan(agent, **arguments):
        raise PlannedError(arguments)

    monkeypatch.setattr(f"purejaxrl.api.plan_{function}", plan)
    options = {**Options.__annotations__, **(Search.__annotations__ if function == "tune" else {})}
    given = {name: object() for name in keywords_of(getattr(purejaxrl, function)) if name in options}
    with pytest.raises(PlannedError) as caught:
        getattr(purejaxrl, function)("dqn", **given, lr=0.5)
    assert caught.value.args[0] == {**given, "lr": 0.5}


def test_every_change_of_a_resumed_training_arrives(monkeypatch):
    received = {}
    monkeypatch.setattr("purejaxrl.api.resume_run", lambda path, **arguments: received.update(arguments))
    given = {name: object() for name in keywords_of(purejaxrl.resume)}
    purejaxrl.resume("run", **given)
    assert {name: received[name] for name in given if name != "progress"} == {
        name: value for name, value in given.items() if name != "progress"
    }


@pytest.mark.parametrize(
    ("function", "wrong", "said"),
    [
        ("train", "learning_rate", "unknown argument learning_rate; train takes episodes, "),
        ("train", "lrr", "unknown argument lrr; did you mean lr?"),
        ("train", "eval_evry", "unknown argument eval_evry; did you mean eval_every?"),
        ("train", "zzz", "unknown argument zzz; "),
        ("train", "overwrit", "unknown argument overwrit; did you mean overwrite?"),
        ("sweep", "randm", "unknown argument randm; did you mean random?"),
        ("sweep", "batchsize", "unknown argument batchsize; did you mean batch_size?"),
        ("tune", "confirm_seed", "unknown argument confirm_seed; did you mean confirm_seeds?"),
        ("resume", "extent", "unknown argument extent; did you mean extend?"),
        ("resume", "seeds", "unknown argument seeds; "),
        ("evaluate", "episode", "unknown argument episode; did you mean episodes?"),
        ("export", "nonsense", "unknown argument nonsense; export takes params, out, agent, network, env, "),
        ("load", "networks", "unknown argument networks; did you mean network?"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_closest_there_is(function, wrong, said, tmp_path, monkeypatch):
    monkeypatch.setattr("purejaxrl.experiment.run.compile_fitting", lambda *_, **__: pytest.fail("compiled"))
    first = "dqn" if function in ("train", "sweep", "tune") else tmp_path
    with pytest.raises(InputError) as caught:
        getattr(purejaxrl, function)(first, **{wrong: 3})
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "arguments", "said"),
    [
        ("--lr 0", {"lr": 0.0}, "{lr}: 0 is not allowed; it takes a finite number above 0"),
        ("--seeds 0", {"seeds": 0}, "{seeds}: 0 is not allowed; it takes a whole number at least 1"),
        (
            "--actors 300 --memory_size 200 --batch_size 8",
            {"actors": 300, "memory_size": 200, "batch_size": 8},
            "{actors}: 300 is more than {memory_size} 200 holds",
        ),
        (
            "--env Acrobot-v1 --observation_type default --stop_when_solved",
            {"env": "Acrobot-v1", "observation_type": "default", "stop_when_solved": True},
            "{stop_when_solved}: no threshold is agreed for Acrobot-v1; give one with {solved_at}",
        ),
        (
            "--torso conv --conv_strides 1 --conv_kernels 3",
            {"torso": "conv", "conv_strides": (1,), "conv_kernels": (3,)},
            "{conv_channels}, {conv_kernels} and {conv_strides}: 2, 1 and 1 layers",
        ),
    ],
)
def test_python_names_arguments_and_the_command_line_flags(words, arguments, said, capsys):
    class Flags(dict):
        """Every name as a flag."""

        def __missing__(self, name):
            return f"--{name}"

    class Arguments(dict):
        """Every name as it is."""

        def __missing__(self, name):
            return name

    assert main(["train", "dqn", *words.split(), "--dry_run"]) == 2
    assert capsys.readouterr().err.startswith(f"purejaxrl: {said.format_map(Flags())}")
    with pytest.raises(InputError) as caught:
        purejaxrl.train("dqn", **arguments)
    assert str(caught.value).startswith(said.format_map(Arguments()))
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("--a_b, --c and (--d): 1", "a_b, c and (d): 1"),
        ("--out: /home/me/--lr/run exists", "out: /home/me/--lr/run exists"),
        ("--preset: '--lr' is unknown", "preset: '--lr' is unknown"),
        ("--env: a -- b --no-such --3", "env: a -- b --no-such --3"),
        ("", ""),
    ],
)
def test_only_names_lose_their_dashes(written, shown):
    for kind in (PurejaxrlError, InputError, DivergedError):
        assert (str(kind(written)), kind(written).with_flags) == (shown, written)
    assert str(InputError()) == ""


def test_saving_and_rendering_a_video_name_their_own_argument(tmp_path):
    result = purejaxrl.train("dqn", **VECTORS)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InputError, match=r"^path: .*taken exists; use overwrite to replace it, or give another folder"):
        result.save(tmp_path / "taken")
    with pytest.raises(InputError, match=r"^path: .*video.avi is not allowed; a video's name ends in"):
        result.video(tmp_path / "video.avi")


def test_a_network_for_an_agent_that_has_none(tmp_path):
    @purejaxrl.config
    class Config:
        """A budget, and nothing of networks."""

        env_steps: int = purejaxrl.budget(8, "env steps")

    agent = dqn.agent._replace(
        name="still",
        Config=Config,
        check=lambda config, env: None,
        rollout_shape=lambda config: (4, 1),
        init=lambda config, env, key: purejaxrl.Learner(jnp.zeros(1)),
        act=lambda config, env, learner, observation, *_: purejaxrl.ActorOutput(jnp.zeros(observation.shape[0], int)),
        policy=lambda config, env, params, observation, carry: purejaxrl.ActorOutput(
            jnp.zeros(observation.shape[:-1], int)
        ),
        update=lambda config, env, learner, batch, progress, key: (learner, {}),
        batch_size=lambda config: 4,
    )
    purejaxrl.train(agent, out=tmp_path / "run")
    with pytest.raises(InputError, match=r"^network: still has no such hyperparameter"):
        purejaxrl.resume(tmp_path / "run", agent=agent, network=object())
    with pytest.raises(InputError, match=r"^unknown argument torso; resume takes extend, "):
        purejaxrl.resume(tmp_path / "run", agent=agent, torso=object())
    assert len(purejaxrl.evaluate(tmp_path / "run", agent=agent, episodes=2)) == 2
