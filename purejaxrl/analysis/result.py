"""The result of a training: tables, learning curves, policies and videos of its runs.

Methods import what they need themselves, so that reading the tables of a run folder does not start JAX.
"""

from __future__ import annotations

import dataclasses
import functools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from purejaxrl.analysis.pickling import HostState, LazyPlan, TemporaryFolder
from purejaxrl.errors import InputError, reason
from purejaxrl.experiment import schema
from purejaxrl.experiment.labels import column_name, counted, is_same, label_of, show, typed
from purejaxrl.experiment.run_config import Recorded, recorded_of
from purejaxrl.storage import run_folder
from purejaxrl.storage.files import absolute_path, read_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from purejaxrl.analysis.evaluation import Evaluation
    from purejaxrl.analysis.learned_params import LearnedParams
    from purejaxrl.analysis.policy import Policy
    from purejaxrl.analysis.statistics import Scores
    from purejaxrl.analysis.tuned import Tuning
    from purejaxrl.envs import Renderer
    from purejaxrl.experiment.plan import Plan
    from purejaxrl.storage.video_files import Sampling
    from purejaxrl.types import Agent, RunState


def load(
    path: str | Path,
    *,
    agent: Agent | None = None,
    network: Any = None,
    env: Any = None,
    env_params: Any = None,
    renderer: Renderer | None = None,
    **objects: Any,
) -> Result:
    """Open a run folder as the Result that `train`, `sweep` or `resume` returned, without the state of the runs.

    The folder of a training that is still running can be opened, too; it holds the rows written so far.

    Args:
        path: The run folder.
        agent: Your own Agent, where the run used one: config.json only names it. Tables and curves do without it, and
            without the next four.
        network: The Flax module, where the training had one; a list of them where they were swept.
        env: The environment object, where the training had one.
        env_params: Its parameters, where config.json does not hold them by value.
        renderer: How to render its images, where that was given.
        **objects: Other fields of your own agent's Config that hold objects.

    Returns:
        The Result with all runs of the folder.

    Raises:
        InputError: If there is no run, a newer version of the package wrote it, or an argument is unknown or not one
            that config.json asks for.
    """
    named = {"agent": agent, "network": network, "env": env, "env_params": env_params, "renderer": renderer}
    given = {name: value for name, value in {**named, **objects}.items() if value is not None}
    if objects:
        from purejaxrl.experiment.plan import refuse_unknown_objects

        refuse_unknown_objects(load, objects, agent)
    path = absolute_path(path)
    run_folder.check_run(path)
    config = read_json(path / "config.json")
    if schema.version_of(config) > schema.SCHEMA_VERSION:
        from purejaxrl.experiment.plan_from_config import refuse_newer

        # It knows all fields, and so which are unknown.
        refuse_newer(config)
    summary = read_json(path / "summary.json") if (path / "summary.json").exists() else {}
    received = summary.get("stopped_by")
    stopped_by = signal.Signals[received].value if received in tuple(signal.Signals.__members__) else None
    result = make_result(path, config, summary, LazyPlan(config, given), stopped_by=stopped_by)
    if given:
        _ = result.plan
    return result


def make_result(
    path: Path,
    config: dict[str, Any],
    summary: dict[str, Any],
    plan: LazyPlan,
    state: RunState | None = None,
    stopped_by: int | None = None,
    folder: TemporaryFolder | None = None,
) -> Result:
    """Make the Result of all runs of a training.

    Args:
        path: The run folder.
        config: Content of config.json.
        summary: Content of summary.json, {} before the training has ended.
        plan: The Plan of the training.
        state: The stacked RunState of all runs [runs, ...], None where it is not known.
        stopped_by: Number of the signal that stopped the training.
        folder: The temporary folder at `path`, None where the user chose the path.

    Returns:
        The Result.

    Raises:
        InputError: If config.json does not describe a training.
    """
    run_config = recorded_of(config)
    return Result(path, summary, np.arange(run_config.runs), stopped_by, run_config, plan, state, folder)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Runs of a training: all of them, or a selection.

    `result[3]`, `result[2:5]`, `select` and `best` return Results of some of the runs, with the same methods. With
    several runs, `policy` and `video` use the best one.

    A Result can be pickled, for instance to return it from a process pool. Your own agent, network or environment is
    pickled with it and must support that. A temporary run folder is pickled with its files, any other as its path.

    Attributes:
        path: The run folder. Unless `out` was given it is a temporary one, deleted with the last Result that uses it;
            `save` keeps a copy.
        summary_json: Content of summary.json, which covers the whole training; {} while that has not ended.
        runs: Run numbers, [len(result)].
        stopped_by: Number of the signal that stopped the training, None where none did.
        config: What config.json says was trained: algorithm, environment, seeds and settings.
    """

    path: Path
    summary_json: dict[str, Any]
    runs: np.ndarray
    stopped_by: int | None
    config: Recorded
    _plan: LazyPlan
    _state: RunState | HostState | None = None
    _folder: TemporaryFolder | None = None

    def __getstate__(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"_state": self._host_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._folder is not None:
            self.__dict__["path"] = self._folder.path

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Result]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, places: int | slice | Any) -> Result:
        """Select runs by position: a number, a slice, a list or a mask, as numpy indexes an array."""
        return dataclasses.replace(self, runs=np.atleast_1d(self.runs[places]))

    def __repr__(self) -> str:
        of = "" if len(self) == self.config.runs else f" of {self.config.runs}"
        swept = f", {self._label or counted(len(self._settings), 'setting')}" if self.config.is_sweep else ""
        interruption = f", {self.interruption}" if self.interruption else ""
        return f"<Result: {self.config.title}, {counted(len(self), 'run')}{of}{swept}{interruption}, in {self.path}>"

    @property
    def _settings(self) -> np.ndarray:
        """The settings of these runs, in order."""
        return np.unique(self.config.setting_of(self.runs))

    @property
    def _label(self) -> str:
        """The swept values of these runs where they have one setting, else nothing."""
        return label_of(self.config.settings[self._settings[0]]) if len(self._settings) == 1 else ""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from purejaxrl.analysis import html

        return html.render_result(self)

    @functools.cached_property
    def _preview(self) -> str:
        """The video in a notebook, of at most 200 steps so that it is there within seconds."""
        from purejaxrl.analysis import html
        from purejaxrl.storage import video_files

        run = self if len(self) == 1 else self.best()
        frames = run._frames("last", 0, 200, video_files.GIF)
        content = video_files.gif(frames, self._frame_seconds(video_files.GIF.every))
        caption = f"run {run.runs[0]}" + (f": {run._label}" if run._label else "")
        return html.image(content, "gif", "the policy at play", frames[0].shape[1], caption)

    @property
    def plan(self) -> Plan:
        """What was trained: agent, settings, environment and options.

        Raises:
            InputError: If one of your own objects is missing; give it to `load`.
        """
        return self._plan.get()

    @property
    def interruption(self) -> str:
        """Where a signal stopped the training, as `interrupted at 50%`; empty where none did."""
        from purejaxrl.analysis.summary import interruption_of

        return interruption_of(self.summary_json)

    @functools.cached_property
    def state(self) -> RunState | None:
        """The stacked RunState [runs, ...]: parameters, optimizers, replay, environments.

        None where the Result was loaded from a folder, or the runs were trained in several batches.
        """
        if self._state is None:
            return None
        if isinstance(self._state, HostState):
            from purejaxrl.analysis.learned_params import restore_state

            return restore_state(self.plan, self._state.take(self.runs).leaves)
        if np.array_equal(self.runs, np.arange(self.config.runs)):
            return self._state
        import jax

        from purejaxrl.training.jax_settings import standard_jax

        with standard_jax():
            return jax.tree.map(lambda leaf: leaf[self.runs], self._state)

    def _host_state(self) -> HostState | None:
        """The state of these runs as it is pickled."""
        if self._state is None:
            return None
        if isinstance(self._state, HostState):
            return self._state.take(self.runs)
        from purejaxrl.analysis.learned_params import leaves_on_host

        return HostState(np.arange(self.config.runs), leaves_on_host(self._state)).take(self.runs)

    def frame(self) -> pd.DataFrame:
        """Read metrics.csv.

        Returns:
            A row per run and logging interval, of these runs; swept hyperparameters are columns.

        Raises:
            InputError: If no interval has been logged yet, or the file is damaged.
        """
        return self._read_rows("metrics.csv", "no interval of a training has ended yet")

    def episodes(self) -> pd.DataFrame:
        """Read episodes.csv.

        Returns:
            A row per episode, of these runs; swept hyperparameters are columns.

        Raises:
            InputError: If episodes were not written, or the file is damaged.
        """
        return self._read_rows("episodes.csv", "above 256 runs it is written with episodes_log='on'")

    def _read_rows(self, name: str, hint: str) -> pd.DataFrame:
        import pandas as pd

        file = self.path / name
        try:
            table = pd.read_csv(file)
            run = table["run"].to_numpy(np.int64)
        except FileNotFoundError:
            raise InputError(f"{self.path} holds no {name}; {hint}") from None
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"cannot read {file}: {reason(error)}") from error
        table = table[np.isin(run, self.runs)].reset_index(drop=True)
        setting = self.config.setting_of(table["run"].to_numpy(np.int64))
        for swept, values in self._swept().items():
            # A name that the file has already for something else stands as swept_NAME there.
            table[f"swept_{swept}" if f"swept_{swept}" in table else swept] = values[setting]
        return table

    def _swept(self) -> dict[str, np.ndarray]:
        """The swept hyperparameters as columns [settings]."""
        return {name: typed(values[name] for values in self.config.settings) for name in self.config.swept}

    def summary(self) -> pd.DataFrame:
        """Compare the settings by the runs selected here, see `purejaxrl.analysis.statistics.describe`.

        Returns:
            A row per setting, best first: setting, swept hyperparameters, rank, interquartile means with 95% bootstrap
            intervals of final return and area under the curve, share of runs solved, env steps to solve.

        Raises:
            InputError: If the training has not ended, no runs are selected, or summary.json is damaged.
        """
        import pandas as pd

        from purejaxrl.analysis.statistics import describe

        scores, setting = self._scores(), self.config.setting_of(self.runs)
        settings = np.unique(setting)
        by_setting = [type(scores)(*(values[setting == one] for values in scores)) for one in settings]
        frame = describe(by_setting, self.summary_json["solved_at"] is not None, self.summary_json["stop_when_solved"])
        own = {"setting", *frame}
        swept = {column_name(name, own): values[settings] for name, values in self._swept().items()}
        table = pd.concat([pd.DataFrame({"setting": settings, **swept}), frame], axis=1)
        return table.sort_values("rank", ignore_index=True)

    @property
    def tuning(self) -> Tuning:
        """What a search has found: the winner, what fresh seeds say of it, and the table of all settings and rungs.

        Raises:
            InputError: If this is no Result of `tune`, or its search has not ended.
        """
        from purejaxrl.analysis.tuned import read_tuning

        return read_tuning(self.path)

    def _scores(self) -> Scores:
        """Scores of these runs."""
        from purejaxrl.analysis.summary import parse_summary

        if not len(self):
            raise InputError("no runs are selected")
        file = self.path / "summary.json"
        if not self.summary_json:
            raise InputError(f"{self.path} holds no summary.json: the training has not ended")
        try:
            scores = parse_summary(self.summary_json).scores
            return type(scores)(*(values[self.runs] for values in scores))
        except (InputError, IndexError) as error:
            raise InputError(f"cannot use {file}: {error}") from error

    def best(self) -> Result:
        """Select the best run.

        Runs are compared by final return; by area under the curve where a run had fewer than 100 episodes; by env steps
        to solve where the training stopped runs that were solved.

        Returns:
            A Result of one run.

        Raises:
            InputError: As `summary` does.
        """
        from purejaxrl.analysis.statistics import best_run

        return self[best_run(self._scores(), bool(self.summary_json.get("stop_when_solved")))]

    def select(self, **values: Any) -> Result:
        """Select runs by swept hyperparameters and seed: `result.select(lr=3e-4, seed=1)`.

        Args:
            **values: A value for each name; a list allows several values, a tuple is one value.

        Returns:
            A Result of the runs that match all of them.

        Raises:
            InputError: If a name was not swept, or no run matches.
        """
        settings = self.config.setting_of(self.runs)
        columns = {name: [self.config.settings[setting][name] for setting in settings] for name in self.config.swept}
        columns["seed"] = self.config.seed_of(self.runs).tolist()
        chosen = np.ones(len(self), bool)
        for name, wanted in values.items():
            if name not in columns:
                raise InputError(f"select: {name} was not swept; use one of {', '.join(columns)}")
            wanted = wanted if isinstance(wanted, list) else [wanted]
            matches = np.array([any(is_same(value, one) for one in wanted) for value in columns[name]], bool)
            if not matches.any():
                there = list(dict.fromkeys(map(show, columns[name])))
                shown = ",".join(map(show, wanted))
                raise InputError(f"select: no run has {name}={shown}; there are {', '.join(there[:20])}")
            chosen &= matches
        if not chosen.any():
            raise InputError(f"select: no run has {label_of(values)} together")
        return self[chosen]

    def plot(self, axes: Axes | None = None, *, column: str | None = None, **line_style: Any) -> Axes:
        """Plot learning curves: the mean return of the last 100 episodes against env steps.

        One setting is shown by a faint line per run, their mean and a band of one standard deviation; several settings
        by the interquartile mean and the middle half of the runs of each, one color per setting, at most 8. Where runs
        have had fewer than 100 episodes their mean is over all so far, and its line is thinner.

        Args:
            axes: Matplotlib axes to plot on; by default those of a new figure.
            column: Another numeric column of `frame` to plot, such as "loss".
            **line_style: Matplotlib properties of the mean lines. `label` names them where several Results share axes.

        Returns:
            The axes.

        Raises:
            InputError: If `frame` has no such column, or raises one itself.
        """
        from purejaxrl.analysis import plots

        metrics, config = self.frame(), self.config
        if column is not None and column not in metrics.select_dtypes("number"):
            raise InputError(f"--column: {column} is no column of numbers; there are {', '.join(metrics.columns)}")
        figure = None
        if axes is None:
            import matplotlib.pyplot as plt

            figure = plt.figure(figsize=plots.SIZE, layout="constrained")
            axes = figure.subplots()
        settings, rows = self._settings, {name: metrics[name].to_numpy() for name in metrics}
        style = {"solved_at": config.solved_at, "column": column, **line_style}
        # Curves with labels of their own share axes with others.
        title = config.env if "label" in line_style else ", ".join(filter(None, [config.title, self._label]))
        if len(settings) == 1:
            plots.plot_runs(axes, rows, title, **style)
        else:
            setting_of_run = config.setting_of(np.arange(config.runs))
            order = self.summary()["setting"].to_numpy() if self.summary_json else settings
            plots.plot_settings(axes, rows, config.labels, order, setting_of_run, title, **style)
        if figure is not None:
            plots.make_room_for_legend(figure)
        return axes

    @property
    def curve(self) -> Path:
        """Path of the learning curve's figure in the run folder."""
        return self.path / ("sweep.png" if self.config.is_sweep else "learning_curve.png")

    def policy(self, params: str = "last") -> Policy:
        """Return the greedy policy as a function observation -> action, of the best run where there are several.

        Args:
            params: `last`, or `best` by the evaluations during training.

        Returns:
            The policy. It takes what the environment's `reset` and `step` return, [..., *observation], with any leading
            axes: state vectors; or, after training from images, the numbers [..., frames, D] that the frames are
            rendered from, as `purejaxrl.make(..., images=)` returns them. See `Policy` for array types.

        Raises:
            InputError: If there are no such parameters, or they are damaged.
        """
        import jax

        from purejaxrl.analysis.policy import Policy

        batch = self._best_learner(params)
        config, learned = jax.tree.map(lambda leaf: leaf[0], (batch.configs, batch.params))
        return Policy(self.plan.agent, config, batch.setting.env, learned)

    def _learners(self, params: str) -> list[LearnedParams]:
        """The learners of these runs; refused in a process where JAX would hang, before anything starts it."""
        from purejaxrl.analysis.learned_params import select_params
        from purejaxrl.training.devices import check_process

        check_process()
        return select_params(self.path, self.plan, params, self.runs)

    def _best_learner(self, params: str) -> LearnedParams:
        """The learner of the best of these runs."""
        (batch,) = (self if len(self) == 1 else self.best())._learners(params)
        return batch

    def evaluate(self, episodes: int = 100, params: str = "last", seed: int = 0, backend: str = "gymnax") -> Evaluation:
        """Play whole episodes with the greedy policy of every run; the returns are those of `purejaxrl.evaluate`.

        Args:
            episodes: Number of episodes of each run.
            params: `last`, or `best` by the evaluations during training.
            seed: Decides where the episodes start.
            backend: `gymnax`, or `gymnasium` for gymnasium's CartPole.

        Returns:
            Mean return and its 95% interval, of each setting where there are several, and the return of every episode.

        Raises:
            InputError: If an argument is not allowed, no runs are selected, or there are no such parameters.
        """
        from purejaxrl.analysis import evaluation

        episodes, seed = evaluation.check_arguments(episodes, seed, backend)
        if not len(self):
            raise InputError("no runs are selected")
        batches = self._learners(params)
        returns = evaluation.play_episodes(self.plan, batches, episodes, seed, backend)
        return evaluation.Evaluation.from_returns(returns, self.config)

    def video(
        self, path: str | Path = "best.gif", *, params: str = "last", seed: int = 0, max_steps: int = 500
    ) -> Path:
        """Record a video of one episode of the greedy policy, of the best run where there are several.

        A GIF of 300 x 200 pixels shows every second step for 0.04 s, an MP4 of 600 x 400 every step for 0.02 s: the
        speed of CartPole itself.

        Args:
            path: File to write, ending in .gif or .mp4. An MP4 needs ffmpeg on the PATH.
            params: `last`, or `best` by the evaluations during training.
            seed: Decides where the episode starts.
            max_steps: Number of steps after which the episode is cut.

        Returns:
            The path of the video.

        Raises:
            InputError: If the environment cannot be rendered (CartPole can be, and whatever was trained with a
                renderer=), or an argument is not allowed.
            ResourceError: If the file cannot be written.
        """
        from purejaxrl.storage import video_files

        path = absolute_path(path)
        video_files.check_target("--path", path)
        cut = video_files.GIF if path.suffix.lower() == ".gif" else video_files.MP4
        video_files.write(path, self._frames(params, seed, max_steps, cut), self._frame_seconds(cut.every))
        return path

    def _frames(self, params: str, seed: int, max_steps: int, cut: Sampling) -> list[np.ndarray]:
        """Frames of one episode, [height, width, 3] uint8 each."""
        from purejaxrl.analysis import video

        video.check_renderable(self.plan)
        return video.record_episode(self.plan, self._best_learner(params), seed, max_steps, cut)

    def _frame_seconds(self, every: int) -> float:
        """Seconds that a frame of a video is shown where one of `every` steps is one: in real time."""
        from purejaxrl.envs import find_renderer

        return every * find_renderer(self.plan.env, self.plan.options.renderer).step_seconds

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Copy the run folder with all runs, whatever is selected here.

        Args:
            path: Folder to copy it to.
            overwrite: Whether to replace an earlier run in that folder.

        Returns:
            The absolute path of the copy.

        Raises:
            InputError: If the path is taken, and no earlier run that may be overwritten.
            ResourceError: If the disk is full.
        """
        if path == "":
            raise InputError("save: '' is not allowed; give a folder")
        path = absolute_path(path)
        if path.resolve() == self.path.resolve():
            raise InputError(f"save: {path} is where the run is already; give another folder")
        run_folder.copy(self.path, path, overwrite=overwrite)
        return path
