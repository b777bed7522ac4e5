"""Greedy policies of run folders: by hand, in gymnax, in gymnasium, and in another program."""

import json
import shutil

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import purejaxrl
from purejaxrl.agents import dqn, vpg
from purejaxrl.analysis.learned_params import load_params
from purejaxrl.cli import main
from purejaxrl.errors import InputError
from purejaxrl.storage.run_folder import RunFolder, read_metadata, read_params

SMALL = {"batch_size": 8, "memory_size": 64, "observation_type": "default", "hidden_sizes": (2,), "env_steps": 60}


def write_balancing_policy(folder, runs):
    """Q of the right action minus Q of the left one is 2 (theta + theta_dot): that balances the pole by itself."""
    lean = np.array([0.0, 0.0, 1.0, 1.0], np.float32)
    arrays = read_params(folder, "last")
    arrays["q/kernel_0"] = np.repeat(np.stack([lean, -lean], axis=1)[None], runs, 0)
    arrays["q/kernel_1"] = np.repeat(np.array([[[-1.0, 1.0], [1.0, -1.0]]], np.float32), runs, 0)
    for bias in ("q/bias_0", "q/bias_1"):
        arrays[bias] = np.zeros((runs, 2), np.float32)
    metadata = read_metadata(folder, "last")
    with RunFolder(folder) as opened:
        opened.write_params("last", arrays, metadata)


@pytest.fixture(scope="module")
def balancing(tmp_path_factory):
    out = tmp_path_factory.mktemp("balancing") / "run"
    purejaxrl.train("dqn", **SMALL, seeds=2, seed=4, out=out)
    write_balancing_policy(out, 2)
    return out


@pytest.mark.parametrize("backend", ["gymnax", "gymnasium"])
def test_a_policy_that_balances_does_so_in_both(balancing, backend):
    frame = purejaxrl.evaluate(balancing, episodes=30, backend=backend)
    assert list(frame.columns) == ["run", "seed", "episode", "return"]
    assert list(frame["run"].unique()) == [0, 1]
    assert list(frame["seed"].unique()) == [4, 5]
    assert len(frame) == 60
    # Its time limit is 200; it keeps the pole up for longer from nearly every start.
    assert (frame["return"] == 200).mean() > 0.95
    assert frame["return"].max() == 200


def test_gymnasium_plays_what_a_plain_loop_plays(tmp_path):
    """A policy that has learned little, episode by episode, action by action."""
    result = purejaxrl.train("vpg", epochs=2, steps_per_epoch=80, actors=4, hidden_sizes=(8,), out=tmp_path / "run")
    returns = purejaxrl.evaluate(result.path, episodes=5, backend="gymnasium", seed=7)["return"]
    _, (batch,) = load_params(result.path)
    kernels = [batch.params.pi[f"kernel_{k}"][0] for k in range(2)]
    biases = [batch.params.pi[f"bias_{k}"][0] for k in range(2)]
    for episode, found in enumerate(returns):
        env = gymnasium.make("CartPole-v1")
        observation, _ = env.reset(seed=7 + episode)
        total, is_over = 0.0, False
        while not is_over and total < 200:
            logits = np.tanh(observation @ kernels[0] + biases[0]) @ kernels[1] + biases[1]
            observation, reward, is_over, _, _ = env.step(int(np.argmax(logits)))
            total += reward
        assert total == found


@pytest.mark.slow
def test_images_are_seen_in_gymnasium_as_in_training(tmp_path):
    """The same greedy policy of images gets the same returns, but for chance, in both implementations."""
    result = purejaxrl.train(
        "dqn", observation_type="img", image="stack", frames=2, image_size=(10, 16), hidden_sizes=(8,), batch_size=8,
        memory_size=64, env_steps=40, out=tmp_path / "run",
    )  # fmt: skip
    means = [
        purejaxrl.evaluate(result.path, episodes=60, backend=backend)["return"].agg(["mean", "sem"])
        for backend in ("gymnax", "gymnasium")
    ]
    assert abs(means[0]["mean"] - means[1]["mean"]) < 4 * np.hypot(means[0]["sem"], means[1]["sem"]) + 1e-6


def test_last_parameters_are_those_of_the_state():
    result = purejaxrl.train("vpg", epochs=2, steps_per_epoch=80, actors=4, hidden_sizes=(8,))
    last = load_params(result.path)[1][0].params
    np.testing.assert_array_equal(last.pi["kernel_0"], result.state.learner.params.pi["kernel_0"])


def test_an_exported_policy_acts_alike_in_numpy(tmp_path):
    result = purejaxrl.train("vpg", epochs=2, steps_per_epoch=80, actors=4, hidden_sizes=(8, 4), seeds=3,
                             normalize_observations=True, out=tmp_path / "run")  # fmt: skip
    weights, description = purejaxrl.export(result.path)
    arrays, told = load_file(weights), json.loads(description.read_text())
    assert told["parts"][""]["runs"] == [0, 1, 2]
    assert set(told["arrays"]) == set(arrays)
    assert not [name for name in arrays if "opt" in name]
    _, (batch,) = load_params(result.path)
    states = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for run in range(3):
        x = np.clip((states - arrays["statistics/mean"][run]) / np.sqrt(arrays["statistics/variance"][run]), -10, 10)
        for layer in range(2):
            x = np.tanh(x @ arrays[f"pi/kernel_{layer}"][run] + arrays[f"pi/bias_{layer}"][run])
        x = x @ arrays["pi/kernel_2"][run] + arrays["pi/bias_2"][run]
        params = jax.tree.map(lambda leaf: leaf[run], batch.params)  # noqa: B023
        acted = vpg.policy(batch.setting.config, batch.setting.env, params, jnp.asarray(states)).action
        np.testing.assert_array_equal(np.argmax(x, axis=1), acted)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two programs of two learning rates, two seeds each: run r has setting r // 2."""
    out = tmp_path_factory.mktemp("swept") / "run"
    return purejaxrl.sweep("dqn", **SMALL | {"hidden_sizes": [(2,), (3,)]}, lr=[1e-3, 1e-4], seeds=2, out=out)


LABELS = [f"hidden_sizes={size} lr={lr}" for size in (2, 3) for lr in (0.001, 0.0001)]


def test_a_sweep_is_evaluated_setting_by_setting(swept, capsys):
    assert swept.config.labels == LABELS
    frame = purejaxrl.evaluate(swept.path, episodes=4)
    assert list(frame.columns) == ["run", "seed", "episode", "return", "hidden_sizes", "lr"]
    assert frame["hidden_sizes"].tolist() == ["2"] * 16 + ["3"] * 16
    assert frame["lr"].tolist() == ([1e-3] * 8 + [1e-4] * 8) * 2
    means = dict(zip(LABELS, frame["return"].to_numpy().reshape(4, 8).mean(axis=1), strict=True))
    assert main(["evaluate", str(swept.path), "--episodes", "4"]) == 0
    heading, columns, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["return"]
    assert columns.split() == ["setting", "runs", "mean", "[95%]"]
    shown = {" ".join(line.split()[:2]): line.split()[2:4] for line in lines}
    assert {label: runs for label, (runs, _) in shown.items()} == dict.fromkeys(LABELS, "2")
    for label, (_, mean) in shown.items():
        assert float(mean) == pytest.approx(means[label], abs=0.06)
    assert sorted(means.values(), reverse=True) == [means[label] for label in shown]
    assert main(["evaluate", str(swept.path), "--episodes", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"settings", "returns"}
    assert {row["label"]: row["mean"] for row in told["settings"]} == pytest.approx(means)
    assert {row["setting"]: (row["lr"], row["hidden_sizes"]) for row in told["settings"]} == {
        0: (1e-3, "2"), 1: (1e-4, "2"), 2: (1e-3, "3"), 3: (1e-4, "3"),
    }  # fmt: skip


def test_exports_and_videos_of_a_sweep_say_which_setting(swept, tmp_path, capsys):
    assert main(["export", str(swept.path), "--out", str(tmp_path / "export")]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"1/ runs 0 to 1: {LABELS[0]}", f"1/ runs 2 to 3: {LABELS[1]}", f"2/ runs 4 to 5: {LABELS[2]}",
        f"2/ runs 6 to 7: {LABELS[3]}",
    ]  # fmt: skip
    (first, second) = json.loads((tmp_path / "export" / "policy.json").read_text())["parts"].values()
    assert [setting["lr"] for setting in first["settings"]] == [1e-3, 1e-3, 1e-4, 1e-4]
    # The config is what all of a program's runs have.
    assert (first["config"]["hidden_sizes"], second["config"]["hidden_sizes"]) == ([2], [3])
    assert "lr" not in first["config"]
    video = str(tmp_path / "video.gif")
    assert main(["video", str(swept.path), "--out", video, "--run", "6", "--max_steps", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [video, f"run 6: {LABELS[3]}"]
    best = swept.best().runs[0]
    assert main(["video", str(swept.path), "--out", video, "--max_steps", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [video, f"run {best}: {LABELS[best // 2]}"]


@pytest.mark.slow
def test_programs_of_several_shapes_are_exported_apart(swept, tmp_path):
    weights, description = purejaxrl.export(swept.path, out=tmp_path)
    arrays = load_file(weights)
    assert arrays["1/q/kernel_0"].shape == (4, 4, 2)
    assert arrays["2/q/kernel_0"].shape == (4, 4, 3)
    assert not [name for name in arrays if "target" in name or "opt" in name]
    assert json.loads(description.read_text())["parts"]["2/"]["runs"] == [4, 5, 6, 7]
    frame = purejaxrl.evaluate(swept.path, episodes=3)
    assert list(frame["run"]) == [run for run in range(8) for _ in range(3)]


def test_the_commands_say_what_they_found(balancing, capsys):
    assert main(["evaluate", str(balancing), "--episodes", "20"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("run 0: 200.0 +- ")
    (ending,) = [line for line in shown.splitlines() if line.startswith("mean of all 2 runs: ")]
    mean, low, high = (float(word.strip("[],")) for word in ending.split()[-3:])
    assert 190 < low <= mean <= high <= 200
    assert main(["evaluate", str(balancing), "--episodes", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["returns"]["1"]) == 3
    assert main(["export", str(balancing)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(balancing / "export" / "policy.safetensors"), str(balancing / "export" / "policy.json"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--episodes", "0"], "--episodes: 0 is not allowed"),
        (["--episodes", "ten"], "--episodes: 'ten' is not allowed"),
        (["--params", "worst"], "--params: 'worst' is not allowed; use last or best"),
        (["--params", "best"], "holds no best parameters; best ones are kept where --eval_every is given"),
        (["--backend", "mujoco"], "--backend: 'mujoco' is not allowed; use one of gymnax, gymnasium"),
        (["--seed", "-1"], "--seed: -1 is not allowed"),
        (["--episode", "3"], "unknown flag --episode; did you mean --episodes?"),
        (["another"], "give one run folder, not 2"),
    ],
)
def test_wrong_input_is_one_line(balancing, words, text, capsys):
    assert main(["evaluate", str(balancing), *words]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_what_an_interrupted_training_lacks_is_to_be_had_by_resuming(balancing, tmp_path, capsys):
    """Killed before any parameters were written, or before those of some runs."""
    cut = tmp_path / "cut"
    shutil.copytree(balancing, cut)
    (cut / "summary.json").unlink()
    metadata = read_metadata(cut, "last")
    with RunFolder(cut) as opened:
        first = {name: values[:1] for name, values in read_params(cut, "last").items()}
        opened.write_params("last", first, {**metadata, "runs": [0]})
    hint = f"the training has not ended; purejaxrl resume {cut} goes on with it"
    with pytest.raises(InputError, match=f"no last parameters of run 1, which has not begun: {hint}"):
        purejaxrl.load(cut)[1].policy()
    assert main(["evaluate", str(cut), "--episodes", "2"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("mean of 1 of 2 runs, the others have no parameters: ")
    shutil.rmtree(cut / "params")
    assert main(["evaluate", str(cut)]) == 2
    assert capsys.readouterr().err == f"purejaxrl: {cut} holds no last parameters: {hint}\n"


def test_gymnasium_plays_cartpole_only(tmp_path):
    result = purejaxrl.train("vpg", env="Acrobot-v1", epochs=1, steps_per_epoch=40, actors=2, out=tmp_path / "run")
    with pytest.raises(InputError, match=r"backend: gymnasium plays CartPole-v0, CartPole-v1, not Acrobot-v1"):
        purejaxrl.evaluate(result.path, backend="gymnasium")


def test_a_custom_agent_must_be_passed(tmp_path):
    agent = dqn.agent._replace(name="mine")
    result = purejaxrl.train(agent, **SMALL, out=tmp_path / "run")
    with pytest.raises(InputError, match="give it as agent="):
        purejaxrl.evaluate(result.path)
    assert len(purejaxrl.evaluate(result.path, episodes=2, agent=agent)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["vpg", "dqn", "a3c"])
def test_a_trained_policy_does_as_well_in_gymnasium(algorithm, tmp_path):
    """Trained until solved here; the real CartPole agrees, seed by seed, within what 200 episodes tell."""
    words = ["train", algorithm, "--preset", "tuned", "--seeds", "4", "--stop_when_solved", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    ours, theirs = (
        purejaxrl.evaluate(tmp_path / "run", episodes=200, backend=backend)
        .groupby("run")["return"]
        .agg(["mean", "sem"])
        for backend in ("gymnax", "gymnasium")
    )
    assert (ours["mean"] > 150).all()
    assert (abs(ours["mean"] - theirs["mean"]) < 4 * np.hypot(ours["sem"], theirs["sem"]) + 0.5).all()
