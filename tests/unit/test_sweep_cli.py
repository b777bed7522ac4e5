"""Sweeps on the command line before anything compiles: alternatives, ranges, and wrong input in one line."""

import json
import time

import pytest

import purejaxrl
from purejaxrl.agents import AGENTS
from purejaxrl.cli import main
from purejaxrl.cli.flags import parse, training_parser
from purejaxrl.components.hyperparameters import field_specs
from purejaxrl.errors import InputError
from purejaxrl.experiment.settings import Range


@pytest.fixture(autouse=True)
def _nothing_compiles(monkeypatch, tmp_path):
    """In a folder of its own, where default run folders would show."""
    monkeypatch.setattr("purejaxrl.experiment.run.compile_fitting", lambda *_, **__: pytest.fail("compiled"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def planned(capsys):
    """What a dry run of `purejaxrl sweep` prints; it prints nothing else."""

    def dry_run(*words):
        code = main(["sweep", *words, "--dry_run"])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        return json.loads(printed.out)

    return dry_run


def flags_of(algorithm, *words, command="sweep"):
    agent = AGENTS[algorithm]
    return parse(training_parser(command, agent), agent, list(words), is_sweep=command == "sweep")


def specs_of(algorithm):
    return field_specs(AGENTS[algorithm].Config)


@pytest.mark.parametrize(
    ("algorithm", "name", "text", "expected"),
    [
        ("dqn", "lr", "1e-3", 1e-3),
        ("dqn", "lr", "1e-3,3e-4", [1e-3, 3e-4]),
        ("dqn", "lr", "1e-3, 3e-4", [1e-3, 3e-4]),
        ("dqn", "lr", "1e-4..1e-2", Range(1e-4, 1e-2)),
        ("dqn", "lr", "1e-4..1e-2:log", Range(1e-4, 1e-2, log=True)),
        ("dqn", "batch_size", "16..1e2:log", Range(16, 100, log=True)),
        ("dqn", "batch_size", "16,1e2,1_000", [16, 100, 1000]),
        ("dqn", "hidden_sizes", "32x32", (32, 32)),
        ("dqn", "hidden_sizes", "32 32", (32, 32)),
        ("dqn", "hidden_sizes", "(32,32)", (32, 32)),
        ("dqn", "hidden_sizes", "32,64", [(32,), (64,)]),
        ("dqn", "hidden_sizes", "32 32,64 64", [(32, 32), (64, 64)]),
        ("dqn", "hidden_sizes", "(32,32),64x64x64, 8", [(32, 32), (64, 64, 64), (8,)]),
        ("dqn", "max_ep_len", "off,None,5", [None, None, 5]),
        ("dqn", "loss", "mse,huber", ["mse", "huber"]),
        ("dqn", "double_q", "True,false", [True, False]),
        ("a3c", "max_grad_norm", "0.5..40:log", Range(0.5, 40.0, log=True)),
    ],
)
def test_values_of_a_sweep(algorithm, name, text, expected):
    """Written out, so that 1, 1.0 and True differ, as do a Range and a tuple."""
    assert repr(flags_of(algorithm, f"--{name}={text}")[name]) == repr(expected)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("lr", "1e-3", 1e-3),
        ("hidden_sizes", "(32,64)", (32, 64)),
        ("max_ep_len", "off", None),
        ("double_q", "true", True),
    ],
)
def test_values_of_one_training(name, text, expected):
    assert flags_of("dqn", f"--{name}={text}", command="train")[name] == expected


def test_parse():
    """What is not given is left out, so that the preset decides it."""
    words = ["--lr", "1e-3,1e-4", "--gamma", "0.9", "--batch_size", "16..32", "--random=5", "--seeds", "1e2", "--yes"]
    flags = flags_of("dqn", *words, "--max_memory", "1.5", "--stop_when_solved")
    assert flags["lr"] == [1e-3, 1e-4]
    assert flags["gamma"] == 0.9
    assert flags["batch_size"] == Range(16, 32)
    assert (flags["random"], flags["seeds"], flags["max_memory"]) == (5, 100, 1.5)
    assert flags["yes"] is flags["stop_when_solved"] is True
    assert not {"hidden_sizes", "solved_at"} & set(flags)
    assert not {"yes", "random"} & set(flags_of("dqn", command="train"))


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["dqn", "--lr", "1e-3,3e-4"], [{"lr": 0.001}, {"lr": 0.0003}]),
        (["dqn", "--lr=1e-3,3e-4"], [{"lr": 0.001}, {"lr": 0.0003}]),
        (["dqn", "--hidden_sizes", "32x32,64x64"], [{"hidden_sizes": [32, 32]}, {"hidden_sizes": [64, 64]}]),
        (["dqn", "--hidden-sizes", "(32,32),(64,64)"], [{"hidden_sizes": [32, 32]}, {"hidden_sizes": [64, 64]}]),
        (["dqn", "--hidden_sizes", "16", "16"], [{}]),
        (
            ["dqn", "--eps_vals", "1x0.01x0.001,1x0.1x0.001"],
            [{"eps_vals": [1, 0.01, 0.001]}, {"eps_vals": [1, 0.1, 0.001]}],
        ),
        (["a3c", "--mode", "async,sync"], [{"mode": "async"}, {"mode": "sync"}]),
        (["vpg", "--lr_anneal", "true,false"], [{"lr_anneal": True}, {"lr_anneal": False}]),
        (["a3c", "--max_grad_norm", "off,0.5"], [{"max_grad_norm": None}, {"max_grad_norm": 0.5}]),
        (
            ["dqn", "--lr", "1e-3,3e-4", "--gamma", "0.9,0.99"],
            [
                {"gamma": 0.9, "lr": 0.001},
                {"gamma": 0.9, "lr": 0.0003},
                {"gamma": 0.99, "lr": 0.001},
                {"gamma": 0.99, "lr": 0.0003},
            ],
        ),
        (
            ["a3c", "--preset", "tuned", "--mode", "async,sync"],
            [{"lr": 0.001, "mode": "async"}, {"lr": 0.007, "mode": "sync"}],
        ),
    ],
    ids=str,
)
def test_a_dry_run_shows_every_setting(planned, words, settings):
    """The last field of the Config varies fastest, wherever its flag is; `config` contains what all settings share."""
    content = planned(*words)
    assert content["settings"] == settings
    assert set(content["config"]) == set(specs_of(words[0])) - set(settings[0])


def test_words_between_commas_are_one_value(planned):
    assert planned("dqn", "--hidden_sizes", "32", "16")["config"]["hidden_sizes"] == [32, 16]
    assert planned("dqn", "--eps_vals", "1", "0.5", "0.1")["config"]["eps_vals"] == [1, 0.5, 0.1]


def test_a_dry_run_of_random_settings(planned):
    words = ["dqn", "--lr", "1e-4..1e-2:log", "--batch_size", "16..64", "--random", "5", "--seeds", "3"]
    content = planned(*words)
    assert [list(values) for values in content["settings"]] == [["batch_size", "lr"]] * 5
    rates = [values["lr"] for values in content["settings"]]
    assert len(set(rates)) == 5
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert all(type(values["batch_size"]) is int for values in content["settings"])
    assert planned(*words)["settings"] == content["settings"]
    assert planned(*words, "--seed", "1")["settings"] != content["settings"]


def test_a_dry_run_leaves_nothing(planned, tmp_path):
    content = planned("dqn", "--lr", "1e-3,1e-4", "--seeds", "4", "--env", "CartPole-v1", "--stop-when-solved")
    assert (content["out"], content["seeds"]) == ("results/sweep-dqn-CartPole-v1-original", 4)
    assert (content["stop_when_solved"], content["solved_at"]) == (True, 475)
    assert list(tmp_path.iterdir()) == []


def test_many_runs_want_a_yes(planned, capsys):
    """100 000 are many enough; of more, the settings are planned, not the runs, so that the answer comes at once."""
    assert planned("dqn", "--seeds", "50000", "--lr", "1e-3,1e-4")["seeds"] == 50_000
    assert main(["sweep", "dqn", "--seeds", "60000", "--lr", "1e-3,1e-4", "--dry_run"]) == 2
    assert "120000 runs" in capsys.readouterr().err
    start = time.perf_counter()
    content = planned("dqn", "--seeds", "60000", "--lr", "1e-3,1e-4", "--yes")
    assert time.perf_counter() - start < 2
    assert content["seeds"] == 60_000
    assert content["settings"] == [{"lr": 0.001}, {"lr": 0.0001}]


def test_a_huge_grid_is_refused_before_it_is_made(capsys, monkeypatch):
    """A million combinations, a thousand by a thousand, would take minutes."""
    monkeypatch.setattr("purejaxrl.experiment.plan.resolve_settings", lambda *_, **__: pytest.fail("made"))
    alternatives = ",".join(f"0.{n:04d}" for n in range(1, 1001))
    assert main(["sweep", "dqn", "--lr", alternatives, "--gamma", alternatives]) == 2
    assert "1000000 runs are more than 100000" in capsys.readouterr().err


WRONG = [
    ("sweep dqn --lr ,", ["--lr: ','", "empty alternative"]),
    ("sweep dqn --lr 1e-3,,1e-4", ["--lr: '1e-3,,1e-4'", "empty alternative"]),
    ("sweep dqn --lr 1e-3,", ["--lr: '1e-3,'", "empty alternative"]),
    ("sweep dqn --lr 1e-3,1e-3", ["--lr: 0.001 is given twice"]),
    ("sweep dqn --lr 1e-3,0.001", ["--lr: 0.001 is given twice"]),
    ("sweep dqn --hidden_sizes 8x8,(8,8)", ["--hidden_sizes: 8x8 is given twice"]),
    ("sweep dqn --max_ep_len off,none", ["--max_ep_len: off is given twice"]),
    ("sweep dqn --lr 1e-3,-1", ["--lr: -1 is not allowed", "above 0"]),
    ("sweep dqn --lr=-1,1e-3", ["--lr: -1 is not allowed", "above 0"]),
    ("sweep dqn --lr 1e-3,fast", ["--lr: 'fast' is not allowed", "finite number above 0"]),
    ("sweep dqn --batch_size 64,2.5", ["--batch_size: '2.5' is not allowed", "whole number"]),
    ("sweep dqn --loss mse,l1", ["--loss: 'l1' is not allowed", "mse, huber"]),
    ("sweep dqn --double_q true,perhaps", ["--double_q: 'perhaps' is not allowed", "true or false"]),
    ("sweep dqn --eps_vals 1x0.1x0.1,1x0.1", ["--eps_vals: 1 0.1 is not allowed", "3 finite numbers"]),
    ("sweep dqn --hidden_sizes 8,()", ["--hidden_sizes: an empty tuple", "one or more"]),
    ("sweep dqn --batch_size 64,200 --memory_size 100", ["--batch_size: 200", "--memory_size 100"]),
    ("sweep dqn --episodes 5,6 --env_steps 100", ["--episodes and --env_steps are two budgets", "give one"]),
    ("sweep a3c --t_max 5,70000 --actors 70000", ["--actors: 70000 with 70000", "2147483647"]),
    ("sweep a3c --preset tuned --env Acrobot-v1 --mode async,sync", ["tuned has no entry", "a3c CartPole-v1 default"]),
    ("sweep dqn --lr 1e-2..1e-4 --random 3", ["--lr: 0.01..0.0001", "below the second"]),
    ("sweep dqn --lr 1e-4..1e-2", ["--lr: 0.0001..0.01 is a range", "--random N"]),
    ("sweep dqn --lr 1e-4..1e-2:lin --random 2", ["--lr: '1e-4..1e-2:lin'", "LOW..HIGH:log"]),
    ("sweep dqn --lr 0..1e-2:log --random 2", ["--lr: 0..0.01:log", "above 0"]),
    ("sweep dqn --lr ..1e-2 --random 2", ["--lr: ''", "finite number"]),
    ("sweep dqn --lr 1e-4..1e-3,1e-2 --random 2", ["--lr: '1e-3,1e-2'", "finite number"]),
    ("sweep dqn --lr nan..1 --random 2", ["--lr: nan..1 is not a range"]),
    ("sweep dqn --lr 1e-3..inf --random 2", ["--lr: 0.001..inf is not a range"]),
    ("sweep dqn --batch_size 1.5..3 --random 2", ["--batch_size: '1.5'", "whole number"]),
    ("sweep dqn --loss huber..mse --random 2", ["--loss: huber..mse is a range", "one of mse, huber"]),
    ("sweep dqn --hidden_sizes 8..16 --random 2", ["--hidden_sizes: 8..16 is a range", "one or more whole numbers"]),
    ("sweep dqn --double_q false..true --random 2", ["--double_q: false..true is a range", "true or false"]),
    ("sweep dqn --lr 1e-3,1e-4 --random 0", ["--random: 0 is not allowed", "at least 1"]),
    ("sweep dqn --lr 1e-3,1e-4 --random 2.5", ["--random: '2.5' is not allowed", "whole number"]),
    ("sweep dqn --lr 1e-3,1e-4 --random 2,3", ["--random: 2,3 is a list", "one value"]),
    ("sweep dqn --random 3", ["--random: 3 settings of what?", "a list or a range"]),
    ("sweep dqn --lr 1e-3 --random 3", ["--random: 3 settings of what?", "a list or a range"]),
    ("sweep dqn --seeds 1,2", ["--seeds: 1,2 is a list", "one value"]),
    ("sweep dqn --seed 0,1", ["--seed: 0,1 is a list", "one value"]),
    ("sweep dqn --env CartPole-v0,CartPole-v1", ["--env: CartPole-v0,CartPole-v1 is a list", "one value"]),
    ("sweep dqn --preset original,tuned", ["--preset: original,tuned is a list", "one value"]),
    ("sweep dqn --device cpu,cuda", ["--device: cpu,cuda is a list", "one value"]),
    ("sweep dqn --episodes_log on,off", ["--episodes_log: on,off is a list", "takes one value"]),
    ("sweep dqn --seeds 60000 --lr 1e-3,1e-4", ["120000 runs", "100000", "--yes"]),
    ("sweep dqn --random 100001 --lr 1e-4..1e-3", ["100001 runs", "100000", "--yes"]),
    ("sweep dqn --coordinator localhost:1234", ["--coordinator: the package's own network protocol is gone"]),
    ("train dqn --process_id=2", ["--process_id: the package's own network protocol is gone"]),
    ("sweep dqn --max_memory 0", ["--max_memory: 0", "above 0"]),
    ("sweep dqn --max_memory -1", ["--max_memory: -1", "above 0"]),
    ("sweep dqn --max_memory nan", ["--max_memory: nan", "finite number above 0"]),
    ("sweep dqn --max_memory lots", ["--max_memory: 'lots'", "finite number"]),
    ("sweep vpg --env Pendulum-v1 --stop_when_solved", ["--stop_when_solved", "Pendulum-v1", "--solved_at"]),
    ("sweep vpg --env Pendulum-v1 --stop-when-solved", ["--stop_when_solved", "Pendulum-v1", "--solved_at"]),
    ("sweep dqn --stop-when-solve", ["unknown flag --stop_when_solve", "did you mean --stop_when_solved?"]),
    ("sweep dqn --lrs 1e-3,1e-4", ["unknown flag --lrs", "did you mean --lr?"]),
    ("sweep dqn --qqq 1", ["unknown flag --qqq", "purejaxrl sweep dqn --help"]),
    ("sweep dqn --lr 1e-3 1e-4", ["unexpected '1e-4'", "--"]),
    ("sweep ppo --lr 1e-3,1e-4", ["'ppo'", "vpg, a3c, dqn"]),
    ("train dqn --lr 1e-3,1e-4", ["--lr: 1e-3,1e-4", "train takes one value", "sweep"]),
    ("train dqn --hidden_sizes (8,8),(4,4)", ["--hidden_sizes: (8,8),(4,4)", "train takes one value", "sweep"]),
    ("train a3c --mode async,sync", ["--mode: async,sync", "train takes one value", "sweep"]),
    ("train dqn --double_q true,false", ["--double_q: true,false", "train takes one value", "sweep"]),
    ("train dqn --lr 1e-4..1e-2:log", ["--lr: 1e-4..1e-2:log", "train takes one value", "sweep"]),
    ("train dqn --batch_size 16..32", ["--batch_size: 16..32", "train takes one value", "sweep"]),
    ("train dqn --seeds 1,2", ["--seeds: 1,2 is a list", "one value"]),
    ("train dqn --random 3", ["unknown flag --random"]),
]


@pytest.mark.parametrize(("command", "said"), WRONG, ids=[command for command, _ in WRONG])
def test_wrong_input_is_refused_in_one_line(command, said, capsys, tmp_path):
    assert main(command.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("purejaxrl: ")
    assert printed.err.count("\n") == 1
    assert all(part in printed.err for part in said), printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "arguments", "said"),
    [
        ("sweep", {"lr": []}, ["lr: an empty list"]),
        ("sweep", {"lr": [1e-3, -1.0]}, ["lr: -1 is not allowed", "above 0"]),
        ("sweep", {"lr": Range(1e-4, 1e-2)}, ["lr: 0.0001..0.01 is a range", "random"]),
        ("sweep", {"lr": [1e-3, 1e-4], "seeds": 60_000}, ["120000 runs", "yes"]),
        (
            "sweep",
            {"lr": [1e-3], "coordinator": "localhost:1"},
            ["coordinator: the package's own network protocol is gone"],
        ),
        ("train", {"num_processes": 2}, ["num_processes: the package's own network protocol is gone"]),
        ("train", {"lr": [1e-3]}, ["lr: 0.001", "train takes one value", "`sweep`"]),
        ("train", {"lr": []}, ["lr: an empty list", "train takes one value", "`sweep`"]),
        ("train", {"hidden_sizes": [(8,), (4, 4)]}, ["hidden_sizes: 8,4x4", "train takes one value", "`sweep`"]),
        ("train", {"lr": Range(1e-4, 1e-2, log=True)}, ["lr: 0.0001..0.01:log", "train takes one value", "`sweep`"]),
        ("train", {"seeds": [1, 2]}, ["seeds: 1,2"]),
    ],
)
def test_wrong_arguments_of_python(call, arguments, said, tmp_path):
    with pytest.raises(InputError) as caught:
        getattr(purejaxrl, call)("dqn", out=tmp_path / "run", **arguments)
    message = str(caught.value)
    assert all(part in message for part in said), message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_hyperparameter_takes_one_value_in_python():
    for call in (purejaxrl.train, purejaxrl.sweep):
        for name, value in (("seeds", [1, 2]), ("device", ["cpu"]), ("max_memory", purejaxrl.Range(1, 2))):
            with pytest.raises(purejaxrl.InputError, match=f"^{name}: .* is a list; {name} takes one value"):
                call("dqn", **{name: value})


def test_help_flag_of_compare_works_anywhere(capsys):
    assert main(["compare", "a", "b", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: purejaxrl compare RUN RUN")
