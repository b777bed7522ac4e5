"""Videos of greedy policies: what is seen, how fast, and in which files."""

import json
import os
import stat
from itertools import pairwise

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import purejaxrl
from purejaxrl.analysis import video
from purejaxrl.analysis.learned_params import select_params
from purejaxrl.cli import main
from purejaxrl.envs.cartpole.rgb import render_rgb
from purejaxrl.errors import InputError, ResourceError
from purejaxrl.storage import video_files

SMALL = {"epochs": 3, "steps_per_epoch": 80, "actors": 4, "train_v_iters": 2, "hidden_sizes": (4,)}
IMAGES = {
    "observation_type": "img", "image": "stack", "frames": 2, "image_size": (8, 16), "hidden_sizes": (4,),
    "batch_size": 8, "memory_size": 64, "env_steps": 40,
}  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return purejaxrl.train("vpg", seeds=2, seed=5, out=tmp_path_factory.mktemp("video") / "run", **SMALL)


def learner_of(result):
    (batch,) = select_params(result.path, result.plan, runs=result.runs)
    return batch


def read_frames(path):
    """Every frame of a GIF and how long it is shown, in milliseconds."""
    with Image.open(path) as video:
        shown = []
        for number in range(video.n_frames):
            video.seek(number)
            shown.append((np.asarray(video.convert("RGB")), video.info["duration"]))
    return shown


def halved_frame(x, theta):
    """What `render_rgb` renders, with the mean of every four pixels."""
    whole = np.asarray(render_rgb(jnp.asarray(x), jnp.asarray(theta)), float)
    return whole.reshape(200, 2, 300, 2, 3).mean(axis=(1, 3))


def test_the_states_are_those_of_gymnasiums_physics_under_the_policy(result):
    batch = learner_of(result[1])
    states = video.play_episode(result.plan, batch, 3, 500)
    policy, env = result[1].policy(), gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    env.state = tuple(states[0])
    for before, after in pairwise(states):
        reached, _, terminated, _, _ = env.step(int(policy(before)))
        np.testing.assert_allclose(after, reached, atol=1e-4)
    assert terminated or len(states) == 201


def test_a_gif_shows_every_second_step_in_real_time(result, tmp_path):
    batch = learner_of(result[1])
    states = video.play_episode(result.plan, batch, 3, 500)
    assert result[1].video(tmp_path / "a" / "video.gif", seed=3) == tmp_path / "a" / "video.gif"
    shown = read_frames(tmp_path / "a" / "video.gif")
    last = len(states) - 1
    chosen = [*range(0, last, 2), last]
    # Frames that are equal to the one before are one frame shown for longer.
    assert sum(time for _, time in shown) == 40 * (len(chosen) - 1) + 1000
    assert shown[0][0].shape == (200, 300, 3)
    for frame, state in ((shown[0][0], states[0]), (shown[-1][0], states[-1])):
        smaller = halved_frame(state[0], state[2])
        # 64 colors, the most frequent ones exact.
        assert np.abs(frame - smaller).max() < 40
        assert np.mean(np.abs(frame - smaller) < 1) > 0.99
    assert (shown[0][0][0] == 255).all()


def test_an_episode_is_cut(result, tmp_path):
    batch = learner_of(result[0])
    assert len(video.play_episode(result.plan, batch, 0, 4)) == 5
    result.video(tmp_path / "short.gif", max_steps=4)
    assert sum(time for _, time in read_frames(tmp_path / "short.gif")) == 2 * 40 + 1000


@pytest.mark.slow
def test_a_policy_of_images_is_rendered_from_its_newest_frame(tmp_path):
    result = purejaxrl.train("dqn", **IMAGES)
    batch = learner_of(result)
    observations = video.play_episode(result.plan, batch, 1, 500)
    numbers = video.select_numbers(result.plan, batch, observations)
    assert observations.shape[1:] == (2, 2)
    # Two frames, one step apart: the older one is the newest of the observation before.
    np.testing.assert_array_equal(observations[1:, 0], numbers[:-1])
    result.video(tmp_path / "video.gif", seed=1)
    frame = read_frames(tmp_path / "video.gif")[0][0]
    assert np.mean(np.abs(frame - halved_frame(*numbers[0])) < 1) > 0.99
    # A policy takes what the environment's observation is.
    assert result.policy()(observations).shape == (len(observations),)


def test_a_custom_renderer_renders(tmp_path):
    def render(numbers, height, width, channels):
        return jnp.full((*numbers.shape[:-1], height, width, channels), 0.4)

    renderer = purejaxrl.Renderer(lambda observation: observation[..., ::2], render)
    result = purejaxrl.train("dqn", **IMAGES, renderer=renderer)
    result.video(tmp_path / "video.gif", max_steps=2)
    assert (read_frames(tmp_path / "video.gif")[0][0] == 102).all()


@pytest.mark.slow
def test_what_cannot_be_rendered_is_one_line(tmp_path):
    result = purejaxrl.train("vpg", env="Acrobot-v1", **SMALL, out=tmp_path / "run")
    with pytest.raises(InputError, match="video: Acrobot-v1 cannot be rendered; CartPole-v0, CartPole-v1 can"):
        result.video(tmp_path / "video.gif")
    assert not (tmp_path / "video.gif").exists()
    assert "data:image/gif" not in result._repr_html_()


def test_few_colors_are_exact_and_stay(tmp_path):
    frames = [np.zeros((8, 8, 3), np.uint8) for _ in range(3)]
    frames[0][:4] = (255, 254, 253)
    frames[1][2] = (1, 2, 3)
    frames[2][:, 5] = (200, 100, 50)
    video_files.write(tmp_path / "video.gif", frames, 0.04)
    for (found, _), expected in zip(read_frames(tmp_path / "video.gif"), frames, strict=True):
        np.testing.assert_array_equal(found, expected)


FFMPEG = """#!/bin/sh
cat > "$(dirname "$0")/received"
echo "$@" > "$(dirname "$0")/arguments"
for last; do true; done
{end}
"""


@pytest.fixture
def fake_ffmpeg(tmp_path, monkeypatch):
    """A program that keeps what it is given, and ends as told."""

    def install(end):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "ffmpeg").write_text(FFMPEG.format(end=end))
        (folder / "ffmpeg").chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    return install


def test_an_mp4_is_what_ffmpeg_makes_of_all_frames(fake_ffmpeg, tmp_path):
    folder = fake_ffmpeg('echo video > "$last"')
    frames = [np.full((4, 6, 3), shade, np.uint8) for shade in (1, 2, 3)]
    video_files.write(tmp_path / "video.mp4", frames, 0.02)
    assert (tmp_path / "video.mp4").read_text() == "video\n"
    assert (folder / "received").read_bytes() == b"".join(bytes([shade]) * 72 for shade in (1, 2, 3))
    arguments = (folder / "arguments").read_text()
    for words in ("-s 6x4", "-r 50", "-pix_fmt rgb24", "-f mp4"):
        assert words in arguments
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "video.mp4"]


def test_what_ffmpeg_complains_of_is_one_line(fake_ffmpeg, tmp_path):
    fake_ffmpeg('echo "no\nsuch codec" >&2; exit 1')
    with pytest.raises(InputError, match=r"ffmpeg cannot write video.mp4: no such codec"):
        video_files.write(tmp_path / "video.mp4", [np.zeros((4, 6, 3), np.uint8)], 0.02)
    assert not list(tmp_path.glob("video*"))


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ('echo "av_write_trailer(): No space left on device" >&2; exit 228', "No space left on device"),
        ("kill -XFSZ $$", "File too large"),
    ],
)
def test_a_disk_that_is_full_for_ffmpeg_is_full(fake_ffmpeg, tmp_path, end, said):
    fake_ffmpeg(end)
    with pytest.raises(ResourceError, match=f"cannot write {tmp_path}/video.mp4: {said}"):
        video_files.write(tmp_path / "video.mp4", [np.zeros((4, 6, 3), np.uint8)], 0.02)
    assert not list(tmp_path.glob("video*"))


def test_the_command_records_a_run(result, tmp_path, capsys):
    assert main(["video", str(result.path), "--run", "1", "--out", str(tmp_path / "video.gif"), "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'video.gif'}\n"
    assert main(["video", str(result.path), "--max_steps", "4"]) == 0
    assert capsys.readouterr().out == f"{result.path / 'video.gif'}\n"
    # It is part of the run now: an --overwrite may take it away.
    assert main(["train", "vpg", "--out", str(result.path), "--overwrite", "--dry_run"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == str(result.path)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--run", "2"], "--run: 2 is not allowed;"),
        (["--run", "x"], "--run: 'x' is not allowed; it takes a whole number"),
        (["--params", "worst"], "--params: 'worst' is not allowed; use last or best"),
        (["--params", "best"], "holds no best parameters"),
        (["--seed", "-1"], "--seed: -1 is not allowed"),
        (["--max_steps", "0"], "--max_steps: 0 is not allowed"),
        (["--out", "video.avi"], "--out: video.avi is not allowed; a video's name ends in .gif or .mp4"),
        (["--out", "video.mp4"], "--out: video.mp4 needs ffmpeg, which is not on the PATH; a name that ends in .gif"),
        (["--our", "video.gif"], "unknown flag --our; did you mean --out?"),
        (["another"], "give one run folder, not 2"),
    ],
)
def test_wrong_input_is_one_line(result, words, text, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert main(["video", str(result.path), *words]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "taken.gif").mkdir()
    (tmp_path / "file").write_text("")
    frames = [np.zeros((2, 2, 3), np.uint8)]
    with pytest.raises(InputError, match=r"taken.gif is a folder; give a file"):
        video_files.check_target("--path", tmp_path / "taken.gif")
    with pytest.raises(ResourceError, match=r"cannot write .*file/video.gif: "):
        video_files.write(tmp_path / "file" / "video.gif", frames, 0.1)
    assert (tmp_path / "file").read_text() == ""
