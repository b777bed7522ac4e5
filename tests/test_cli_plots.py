"""`plot`, `completion` and `--verbose`, on run folders written by hand."""

import subprocess
import sys

import matplotlib
import pytest
from by_hand import CONFIG, SUMMARY, write_run
from PIL import Image

import purejaxrl
from purejaxrl.analysis.figures import write_curves
from purejaxrl.cli import completion, main
from purejaxrl.errors import InputError, ResourceError
from purejaxrl.storage.run_folder import RunFolder


@pytest.fixture
def path(tmp_path):
    """A sweep that has ended, with delays as A3C counts them."""
    delays = {"bin_width": 1, "counts": {"0": 2, "3": 6}}
    path = write_run(tmp_path / "mine", summary=SUMMARY | {"delay_histogram": delays})
    purejaxrl.load(path).summary().to_csv(path / "sweep.csv", index=False)
    return path


def test_the_figures_of_a_folder_are_plotted_again(path, capsys):
    for _ in range(2):
        assert main(["plot", str(path)]) == 0
        assert capsys.readouterr().out.split() == [str(path / "sweep.png"), str(path / "delay_histogram.png")]
    for name in ("sweep.png", "delay_histogram.png"):
        with Image.open(path / name) as figure:
            assert figure.width >= 900


def test_the_figure_of_a_search_is_plotted_again(path, capsys):
    (path / "tune.csv").write_text(
        "setting,lr,hidden_sizes,rung,budget,seeds,env_steps,score,low,high,goes_on\n"
        "0,0.001,8,0,1000,2,2000,15,10,20,1\n1,0.001,4x4,0,1000,2,2000,9,,,0\n0,0.001,8,1,2000,2,4000,40,30,50,0\n"
    )
    for _ in range(2):
        assert main(["plot", str(path)]) == 0
        assert capsys.readouterr().out.split()[-1] == str(path / "tune.png")
        with Image.open(path / "tune.png") as figure:
            assert figure.width >= 900


def test_a_users_settings_of_matplotlib_change_no_figure(path, tmp_path):
    """LaTeX that is not there, 20 000 dots per inch, sketched white lines: the bytes stay as they are."""
    out = tmp_path / "curves.png"
    commands = ["plot", str(path)], ["plot", str(path), "--out", str(out)]
    files = path / "sweep.png", path / "delay_histogram.png", out
    written = []
    settings = {"text.usetex": True, "savefig.dpi": 20000, "path.sketch": (5, 90, 9), "axes.edgecolor": "white"}
    for chosen in ({}, settings):
        with matplotlib.rc_context(chosen):
            assert [main(words) for words in commands] == [0, 0]
            assert chosen.items() <= dict(matplotlib.rcParams).items()
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


def test_curves_of_folders_are_plotted_in_one_figure(path, tmp_path, capsys):
    single = {name: value for name, value in CONFIG.items() if name not in ("swept", "settings")} | {"seeds": 8}
    other = write_run(tmp_path / "other", single)
    out = tmp_path / "new" / "curves.svg"
    assert main(["plot", str(path), str(other), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    text = out.read_text()
    for name in ("mine lr=0.0003 hidden_sizes=8", "mine lr=0.001 hidden_sizes=4x4", "other (8 runs)"):
        assert f"<!-- {name} -->" in text
    assert main(["plot", str(other), "--out", str(out), "--column", "loss"]) == 0
    assert "<!-- loss (8 runs) -->" in out.read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["mine", "other"], "plot: 2 folders are plotted in one figure; give its name with --out"),
        (["mine", "--column", "loss"], "--column: it goes with --out"),
        (["mine", "--out", "curves.docx"], "--out: curves.docx is not allowed; the name of a figure ends in one of"),
        (["mine", "--out", "mine.d"], "--out: mine.d is not allowed"),
        (["mine", "--out", "curves.png", "--column", "los"], "--column: los is no column of numbers; there are run"),
        (["mine", "other", "--out", "curves.png"], "CartPole-v0 in mine, CartPole-v1 in other; give folders of one"),
        (["--out", "curves.png"], "plot: give a run folder"),
        (["mine", "--colum", "loss"], "unknown flag --colum; did you mean --column?"),
        (["nothing"], "nothing is not a run folder"),
        (["other"], "other holds no sweep.csv: the training has not ended"),
    ],
)
def test_wrong_input_is_one_line(path, words, text, capsys, monkeypatch):
    write_run(path.parent / "other", CONFIG | {"env": "CartPole-v1"})
    monkeypatch.chdir(path.parent)
    before = sorted(path.parent.rglob("*"))
    assert main(["plot", *words]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert sorted(path.parent.rglob("*")) == before


def test_a_damaged_folder_is_one_line(path, capsys):
    for file, content in (
        ("summary.json", '{"delay_histogram": 3}'),
        ("sweep.csv", "\x00"),
        ("metrics.csv", "run,env_steps,episodes,return_100,return_mean,eval_return\n99,1,100,1,1,\n"),
        ("metrics.csv", "run\n1\n"),
        ("config.json", "{}"),
    ):
        (path / file).write_text(content)
        assert main(["plot", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_in_use_is_not_written_to(path, capsys, tmp_path):
    code = "import sys; from purejaxrl.cli import main; sys.exit(main(sys.argv[1:]))"
    with RunFolder(path):
        words = ["plot", str(path)]
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 3
        assert "is in use by another process" in done.stderr
        # To look at a training that is still running, plot elsewhere.
        assert main([*words, "--out", str(tmp_path / "curves.png")]) == 0


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_covers_every_command_and_flag(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("sweep", "resume", "evaluate", "plot", "video", "compare", "export", "list", "a3c"):
        assert word in script
    for flag in ("target_update_steps", "entropy_coef", "train_v_iters", "extend", "episodes", "column", "max_steps"):
        assert flag in script


def test_bash_completes(capsys, tmp_path):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    ask = """source {script}
    COMP_WORDS=({words} "{last}"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    $(complete -p purejaxrl | grep -o -- '-F [^ ]*' | cut -d' ' -f2); echo "${{COMPREPLY[@]}}"
    """

    def completed(words, last):
        code = ask.format(script=script, words=words, last=last)
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60).stdout.split()

    assert completed("purejaxrl", "ev") == ["evaluate"]
    assert completed("purejaxrl train dqn", "--target") == ["--target_update", "--target_update_steps", "--target_tau"]


@pytest.mark.parametrize("words", [["csh"], ["bash", "zsh"], [""]])
def test_no_other_shells(words, capsys):
    assert main(["completion", *words]) == 2
    assert "is not a shell; use one of bash, zsh, fish" in capsys.readouterr().err


def test_verbose_says_more_and_leaves_no_trace(tmp_path, capsys):
    words = ["train", "vpg", "--epochs", "1", "--steps_per_epoch", "40", "--actors", "2", "--hidden_sizes", "4"]
    assert main([*words, "--out", str(tmp_path / "run"), "--json", "--verbose"]) == 0
    said = capsys.readouterr().err
    for text in (f"run folder: {tmp_path / 'run'}", "program 1 of 1: 1 run side by side in ", "checkpoint in "):
        assert text in said
    assert main([*words, "--out", str(tmp_path / "run"), "--overwrite", "--json"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "--quiet", "--verbose"]) == 2
    assert capsys.readouterr().err == "purejaxrl: --verbose: it contradicts --quiet; give one\n"


def test_where_no_figure_can_be_written(tmp_path):
    (tmp_path / "taken.png").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"taken.png is a folder; give a file"):
        write_curves(tmp_path / "taken.png", [])
    with pytest.raises(ResourceError, match=r"cannot write .*file/curves.png: "):
        write_curves(tmp_path / "file" / "curves.png", [])


def test_a_table_in_any_order_gives_the_same_figure(path):
    """Earlier versions wrote sweep.csv in the order of settings, and anyone may have sorted it."""
    assert main(["plot", str(path)]) == 0
    before = (path / "sweep.png").read_bytes()
    table = purejaxrl.load(path).summary()
    assert table["setting"].tolist() != sorted(table["setting"])
    table.sort_values("setting").to_csv(path / "sweep.csv", index=False)
    assert main(["plot", str(path)]) == 0
    assert (path / "sweep.png").read_bytes() == before


def test_a_figure_of_different_trainings_says_what_is_mixed(path, tmp_path, capsys):
    kinds = {"config": {"epochs": None, "env_steps": 2000}, "observation_type": "img", "preset": "tuned"}
    one = write_run(tmp_path / "one", CONFIG | kinds)
    longer = {"config": {"epochs": 5, "env_steps": None, "steps_per_epoch": 2000}}
    two = write_run(tmp_path / "two", CONFIG | kinds | longer | {"env_params": {"gravity": 5.0}})
    out = str(tmp_path / "curves.svg")
    assert main(["plot", str(one), str(two), "--out", out]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "purejaxrl: plot: Environment parameters differ: the defaults in one; gravity=5 in two.",
        "purejaxrl: plot: Budgets differ: 2,000 env steps in one; 10,000 env steps in two.",
    ]
    assert "<!-- CartPole-v0: environment parameters, budgets differ -->" in (tmp_path / "curves.svg").read_text()
    other = write_run(tmp_path / "other", CONFIG | kinds | {"observation_type": "default", "preset": "original"})
    assert main(["plot", str(one), str(other), "--out", out]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "purejaxrl: plot: Observation types differ: img in one; default in other.",
        "purejaxrl: plot: Presets differ: tuned in one; original in other.",
    ]
    # What is not known differs from nothing.
    assert main(["plot", str(path), str(write_run(tmp_path / "same")), "--out", out]) == 0
    assert capsys.readouterr().err == ""
