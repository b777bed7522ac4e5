"""What is loaded is data: nothing in a file is run, imported, followed out of its folder or trusted with memory."""

import ast
import json
import pickle
import shutil
from pathlib import Path

import pytest

import purejaxrl
from purejaxrl.cli import main
from purejaxrl.errors import InputError

PACKAGE = Path(purejaxrl.__file__).parent
TINY = ["train", "vpg", "--epochs", "2", "--steps_per_epoch", "40", "--actors", "2", "--hidden_sizes", "4", "--quiet"]

FORBIDDEN_IMPORTS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "runpy", "code"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "system", "popen", "spawnl", "unsafe_load"}
# Their own names alone, none of which comes from a file.
IMPORTS_BY_NAME = {PACKAGE / "__init__.py", PACKAGE / "api.py", PACKAGE / "envs/registry.py"}


def trees():
    return [(path, ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]


def called_name(node):
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def offences(tree, path):
    """Forbidden imports and calls of a module, in words."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [f"import {name}" for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS]
        if isinstance(node, ast.Call):
            name, keywords = called_name(node), {word.arg: word.value for word in node.keywords}
            # `.compile()` of a lowered program is JAX's, `re.compile` makes a pattern.
            is_method = isinstance(node.func, ast.Attribute)
            if name in FORBIDDEN_CALLS and not (name == "compile" and is_method):
                found.append(f"call of {name}")
            if name == "import_module" and path not in IMPORTS_BY_NAME:
                found.append("import_module")
            if name == "load" and is_method and getattr(node.func.value, "id", "") in ("np", "numpy", "jnp"):
                allowed = keywords.get("allow_pickle")
                if not (isinstance(allowed, ast.Constant) and allowed.value is False):
                    found.append("load without allow_pickle=False")
            if isinstance(keywords.get("shell"), ast.Constant) and keywords["shell"].value:
                found.append("shell=True")
    return found


def test_the_package_never_runs_what_it_reads():
    modules = trees()
    assert len(modules) > 50
    assert {str(path): offences(tree, path) for path, tree in modules if offences(tree, path)} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import yaml.reader", "eval('1')", "exec('x')", "np.load(f)",
        "np.load(f, allow_pickle=True)", "os.system('ls')", "importlib.import_module(name)", "compile('1', '', 'eval')",
        "subprocess.run('ls', shell=True)", "__import__('os')",
    ],
)  # fmt: skip
def test_the_walk_sees_what_it_looks_for(text):
    assert offences(ast.parse(text), Path("somewhere.py"))


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TINY, "--out", str(out)]) == 0
    return out


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def hostile_texts(canary):
    code = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    return {
        "expression": code,
        "yaml": f"!!python/object/apply:os.system ['touch {canary}']",
        "json": json.dumps({"algorithm": code, "env": code, "config": {"epochs": code}}),
        "reduce": json.dumps({"py/reduce": [{"py/type": "os.system"}, {"py/tuple": [f"touch {canary}"]}]}),
        "dotted": json.dumps({"algorithm": "os.system", "env": "purejaxrl.api:train", "renderer": "subprocess.run"}),
        "deep": "[" * 100_000,
        "huge number": json.dumps({"seeds": 10**400}),
        "pickle": pickle.dumps(Canary(canary)).decode("latin1"),
    }


@pytest.mark.parametrize("kind", sorted(hostile_texts("x")))
@pytest.mark.parametrize(
    "name", ["config.json", "summary.json", "checkpoint metadata", "params/last.safetensors", "metrics.csv"]
)
def test_hostile_files_are_data(folder, kind, name, tmp_path, capsys):
    canary = tmp_path / "canary"
    path = max((folder / "checkpoints").iterdir()) / "facts.json" if name == "checkpoint metadata" else folder / name
    path.write_bytes(hostile_texts(canary)[kind].encode("latin1"))
    for words in (["resume", str(folder), "--extend", "4"], ["evaluate", str(folder)], ["export", str(folder)],
                  ["compare", str(folder), str(folder)]):  # fmt: skip
        code = main(words)
        error = capsys.readouterr().err
        assert code in (0, 2, 4), error
        assert "Traceback" not in error
        assert "internal error" not in error, error
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


LINKS = ["config.json", "metrics.csv", "episodes.csv", "summary.json", "learning_curve.png", "params", "checkpoints",
         "params/last.safetensors", "export", "checkpoints/000009"]  # fmt: skip


@pytest.mark.parametrize("command", ["resume", "evaluate", "export"])
@pytest.mark.parametrize("name", LINKS)
def test_links_out_of_a_run_folder_are_refused(folder, name, command, tmp_path, capsys):
    outside = tmp_path / "outside"
    place = folder / name
    if place.exists():
        shutil.move(place, outside)
    else:
        outside.mkdir()
    place.symlink_to(outside)
    before = sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*"))
    assert main([command, str(folder)]) == 2
    assert "is a link" in capsys.readouterr().err
    assert sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["params", "checkpoints", "export"])
def test_overwriting_does_not_follow_links(folder, name, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "last.safetensors").write_text("somebody's")
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).symlink_to(outside)
    assert main([*TINY, "--overwrite", "--out", str(folder)]) == 2
    assert (outside / "last.safetensors").read_text() == "somebody's"


@pytest.mark.parametrize("env", ["../x", "/etc/passwd", "CartPole-v0/../../x", "a\0b", "", ".", "results"])
def test_the_default_folder_cannot_be_led_astray(env, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*TINY, "--env", env]) == 2
    assert not list(tmp_path.iterdir())


def header_of(**entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HOSTILE_TENSORS = {
    "empty": b"",
    "no header": b"\xff" * 8,
    "header too long": (2**62).to_bytes(8, "little") + b"{}",
    "not JSON": (4).to_bytes(8, "little") + b"{{{{",
    "more than there is": header_of(x={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}),
    "negative shape": header_of(x={**ONE, "shape": [-1]}) + b"1234",
    "overlap": header_of(x=ONE, y=ONE) + b"1234",
    "unknown type": header_of(x={**ONE, "dtype": "PICKLE"}) + b"1234",
    "no owner": header_of(x=ONE) + b"1234",
    "wrong runs": header_of(__metadata__={"purejaxrl": '{"algorithm": "vpg", "runs": [7]}'}),
    "runs no list": header_of(__metadata__={"purejaxrl": '{"algorithm": "vpg", "runs": "all"}'}),
    "true runs": header_of(__metadata__={"purejaxrl": '{"algorithm": "vpg", "runs": [true]}'}),
    "nothing in it": header_of(__metadata__={"purejaxrl": '{"algorithm": "vpg", "runs": [0]}'}),
    "metadata no JSON": header_of(__metadata__={"purejaxrl": "{"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE_TENSORS)
def test_hostile_parameters_are_one_line(folder, kind, capsys):
    file = folder / "params" / "last.safetensors"
    file.write_bytes(HOSTILE_TENSORS[kind])
    for command in ("evaluate", "export"):
        assert main([command, str(folder)]) == 2
        error = capsys.readouterr().err
        assert "last.safetensors" in error
        assert error.count("\n") == 1
    assert file.read_bytes() == HOSTILE_TENSORS[kind]
    assert not (folder / "export").exists()


def test_parameters_of_another_training_are_refused(folder, tmp_path):
    other = tmp_path / "other"
    assert main([*TINY[:-3], "--hidden_sizes", "6", "--quiet", "--out", str(other)]) == 0
    shutil.copy(other / "params" / "last.safetensors", folder / "params" / "last.safetensors")
    with pytest.raises(InputError, match=r"is float32\[1,6\], and should be float32\[1,4\]"):
        purejaxrl.evaluate(folder)
