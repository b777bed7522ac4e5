"""Generated command lines, calls and damaged files: never a traceback, always one line that says what is allowed.

Run by test_fuzz.py in processes of their own.
"""

import json
import re
import shutil

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import purejaxrl
from purejaxrl.agents import AGENTS
from purejaxrl.cli import main
from purejaxrl.cli.flags import training_parser
from purejaxrl.errors import InputError, PurejaxrlError
from purejaxrl.experiment.plan import plan_sweep, plan_train

FUZZING = settings(
    max_examples=700,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

COMMANDS = ["train", "resume", "evaluate", "export", "compare", "plot", "video", "list", "completion"]
NUMBERS = st.one_of(
    st.integers(-3, 70).map(str),
    st.sampled_from(
        [
            "1e-3",
            "0.5",
            "0",
            "-0.0",
            "1e400",
            "nan",
            "inf",
            "-inf",
            "1e5",
            "0x10",
            "1_000",
            "٣",
            "1e-50",
            str(2**31),
            str(2**63),
            "1.5",
            "1e3",
        ]
    ),
)
WORDS = st.sampled_from(
    [
        "",
        " ",
        "none",
        "off",
        "true",
        "False",
        "adam",
        "rmsprop",
        "mse",
        "huber",
        "async",
        "sync",
        "img",
        "default",
        "tuned",
        "original",
        "stack",
        "difference",
        "CartPole-v0",
        "CartPole-v1",
        "Acrobot-v1",
        "Pendulum-v1",
        "no such",
        "conv",
        "mlp",
        "cpu",
        "tpu",
        "auto",
        "../x",
        "a/b",
        "\\",
        "%s",
        "{}",
        "ünï",
        "-",
        "--",
        "=",
        ",",
        "1,2",
        "1..2",
        "1e-4..1e-2:log",
        "..",
        "5..1",
        "32x32",
        "(32,32)",
        "(1",
        "1)",
        "x",
        "32 32",
        "((8,8),(4))",
        "1,,2",
        ",1",
        "8x0",
        "0.1 0.2 0.3",
        "\x00",
        "\n",
    ],
)
VALUES = st.one_of(NUMBERS, WORDS, st.text(max_size=6))


def flags_of(command, agent):
    return [action.option_strings[-1] for action in training_parser(command, agent)._actions if action.option_strings]


FLAGS = sorted(
    {flag for command in ("train", "sweep") for agent in AGENTS.values() for flag in flags_of(command, agent)}
    - {"--help", "-h", "--debug"}
)


@st.composite
def command_lines(draw):
    """A command, an algorithm and some flags, with values that may or may not be theirs."""
    command = draw(st.sampled_from(["train", "sweep", "train", "sweep", "tain"]))
    words = [command, draw(st.sampled_from([*AGENTS, *AGENTS, *AGENTS, "ppo", ""]))]
    for _ in range(draw(st.integers(0, 4))):
        flag = draw(st.sampled_from(FLAGS))
        kind = draw(st.integers(0, 9))
        if kind == 0:
            flag = flag.replace("_", "-")
        elif kind == 1:
            flag = flag[:-1]
        value = draw(VALUES)
        words += [f"{flag}={value}"] if draw(st.booleans()) else [flag, *value.split(" ")]
    return [*words, "--dry_run"]


@seed(1)
@FUZZING
@given(words=command_lines())
def test_no_command_line_prints_a_traceback(words, capsys, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    monkeypatch.setattr("purejaxrl.experiment.run.compile_fitting", lambda *_, **__: pytest.fail("compiled"))
    code = main(words)
    printed = capsys.readouterr()
    assert code in (0, 2), printed.err
    if code == 0:
        assert printed.err == ""
        assert json.loads(printed.out)["config"]
    else:
        assert printed.err.startswith("purejaxrl: ")
        assert printed.err.count("\n") == 1, printed.err
        # It names the flag, or what else of the line is wrong.
        assert re.search(r"--\w|unknown (command|algorithm) '|flags start with --", printed.err), printed.err
        assert "Traceback" not in printed.err
        assert "internal error" not in printed.err


@seed(2)
@settings(FUZZING, max_examples=300)
@given(
    words=st.lists(
        st.one_of(st.sampled_from([*FLAGS, *COMMANDS, "dqn"]), VALUES),
        max_size=5,
    )
)
def test_no_heap_of_words_prints_a_traceback(words, capsys, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    code = main([*words, "--dry_run"])
    error = capsys.readouterr().err
    assert code in (0, 2), error
    assert error.count("\n") == (code != 0), error
    assert "internal error" not in error


THINGS = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.sampled_from(["dqn", "img"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(), inner, max_size=2)
    ),
    max_leaves=4,
)
NAMES = st.sampled_from(
    [
        *[
            flag.lstrip("-")
            for flag in FLAGS
            if flag not in ("--out", "--overwrite", "--quiet", "--verbose", "--json", "--dry_run", "--no_cache")
        ],
        "nonsense",
    ]
)


@seed(3)
@FUZZING
@given(
    arguments=st.dictionaries(NAMES, THINGS, max_size=3),
    algorithm=st.sampled_from([*AGENTS, "ppo"]),
    swept=st.booleans(),
)
def test_python_calls_raise_one_kind_of_error(arguments, algorithm, swept):
    try:
        plan = (plan_sweep if swept else plan_train)(algorithm, **arguments)
    except InputError:
        return
    assert plan.as_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("fuzz") / "run"
    purejaxrl.train("vpg", epochs=2, steps_per_epoch=40, actors=2, hidden_sizes=(4,), out=out)
    return out


def mutated(draw, value):
    """A JSON value with one of its parts replaced."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 5)) == 0:
            return {key: entry for key, entry in value.items() if key != name}
        return {**value, name: mutated(draw, value[name])}
    return draw(st.one_of(THINGS, st.just([value, value])))


@seed(4)
@settings(FUZZING, max_examples=60)
@given(data=st.data())
def test_damaged_configs_never_print_a_traceback(data, folder, capsys):
    config = json.loads((folder / "config.json").read_text())
    original = (folder / "config.json").read_bytes()
    try:
        (folder / "config.json").write_text(json.dumps(mutated(data.draw, config)))
        for words in (["resume", str(folder), "--dry_run"], ["evaluate", str(folder), "--episodes", "0"]):
            code = main(words)
            error = capsys.readouterr().err
            assert code in (0, 2, 4), error
            assert "internal error" not in error, error
            assert error.count("\n") == (code != 0)
    finally:
        (folder / "config.json").write_bytes(original)


@seed(5)
@settings(FUZZING, max_examples=40)
@given(data=st.data())
def test_damaged_files_never_print_a_traceback(data, folder, capsys, tmp_path_factory):
    """Bytes changed, cut off or added anywhere in a run folder: refused in one line, and nothing is overwritten."""
    copy = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(folder, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.suffix != ".png")
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, max(len(content) - 1, 0)))
    how = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if how == "flip" and content:
        content[place] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del content[place:]
    else:
        content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    file.write_bytes(content)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for words in (
        ["resume", str(copy), "--dry_run"],
        ["evaluate", str(copy), "--episodes", "1"],
        ["compare", str(copy), str(copy)],
        ["plot", str(copy), "--out", str(copy.parent / "curves.png")],
        ["video", str(copy), "--out", str(copy.parent / "video.gif"), "--max_steps", "0"],
    ):
        code = main(words)
        error = capsys.readouterr().err
        assert code in (0, 2, 4), error
        assert "internal error" not in error, error
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    shutil.rmtree(copy)


def test_errors_know_their_codes():
    codes = {error.__name__: error.exit_code for error in PurejaxrlError.__subclasses__()}
    assert codes == {
        "InputError": 2,
        "InUseError": 3,
        "CheckpointError": 4,
        "DivergedError": 5,
        "ResourceError": 6,
        "UnsupportedError": 1,
        "ClusterError": 1,
    }
