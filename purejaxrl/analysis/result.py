"""What a training leaves in the hands of whoever called for it: tables, curves, policies, films of its runs.

Whatever a method needs is imported there, so that looking at a run folder does not start JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import signal
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from purejaxrl.errors import InputError, ResourceError, reason
from purejaxrl.experiment import schema
from purejaxrl.experiment.labels import counted, is_same, label_of, show, typed
from purejaxrl.experiment.run_config import Recorded, recorded_of
from purejaxrl.storage import run_folder
from purejaxrl.storage.files import absolute_path, read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from purejaxrl.analysis.evaluation import Evaluation
    from purejaxrl.analysis.learned_params import Learners
    from purejaxrl.analysis.policy import Policy
    from purejaxrl.analysis.statistics import Scores
    from purejaxrl.envs import Renderer
    from purejaxrl.experiment.plan import Plan
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
    """The Result of a run folder, as `train`, `sweep` and `resume` return it, but for the state of the runs.

    A training that has not ended can be looked at, too: what is in its files by now.

    Args:
        path: The run folder.
        agent: The Agent, where it is your own, which config.json only names. Tables
            and curves do without it, and without the next four.
        network: The Flax module, where the training had one; a list of them where they were swept.
        env: The environment object, where the training had one.
        env_params: Its parameters, where config.json does not hold them by value.
        renderer: How to draw its images, where that was given.
        **objects: Other fields of your own agent's Config that hold objects.

    Returns:
        The Result.

    Raises:
        InputError: If there is no run, a newer version of the package wrote it, or an argument is unknown, or not
            one that config.json asks for.
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
    facts = read_json(path / "summary.json") if (path / "summary.json").exists() else {}
    received = facts.get("stopped_by")
    stopped_by = signal.Signals[received].value if received in tuple(signal.Signals.__members__) else None
    result = result_of(path, config, facts, MakePlan(config, given), stopped_by=stopped_by)
    if given:
        _ = result.plan
    return result


class MakePlan:
    """() -> the Plan of what config.json holds, made when it is first asked for.

    objects: those of the user's own, as for `load`. plan: where it is there already. Pickled are config and objects
    alone, so that a Result arrives without JAX being started.
    """

    def __init__(self, config: dict[str, Any], objects: dict[str, Any] | None = None, plan: Plan | None = None) -> None:
        self.config = config
        self.objects = objects
        self.plan = plan

    def __call__(self) -> Plan:
        """Raises InputError where an object is missing, or is not what config.json says."""
        if self.plan is None:
            from purejaxrl.experiment.plan_from_config import replan

            self.plan = replan(self.config, **(self.objects or {}))
        return self.plan

    def __reduce__(self) -> Any:
        if self.objects is None and self.plan is not None:
            from purejaxrl.experiment.plan_from_config import objects_of

            return MakePlan, (self.config, objects_of(self.plan))
        return MakePlan, (self.config, self.objects)


def result_of(
    path: Path,
    config: dict[str, Any],
    facts: dict[str, Any],
    make_plan: Callable[[], Plan],
    whole_state: RunState | None = None,
    stopped_by: int | None = None,
    home: Home | None = None,
) -> Result:
    """The Result of all runs. config, facts: what config.json and summary.json hold."""
    recorded = recorded_of(config)
    return Result(path, facts, np.arange(recorded.runs), stopped_by, recorded, make_plan, whole_state, home)


class Home:
    """A temporary folder, which goes when nothing refers to this any more, or the program ends.

    Pickled are the files themselves. Wherever they arrive, another process or another machine, they are written to a
    temporary folder of that process, as this one's may be gone by then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        weakref.finalize(self, _remove, path, os.getpid())

    def __reduce__(self) -> Any:
        return _new_home, (run_folder.contents(self.path),)


def _remove(path: Path, owner: int) -> None:
    """Remove a folder, unless this is a fork of the process that it belongs to."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


def _new_home(files: dict[str, bytes]) -> Home:
    """A temporary folder with these files. Raises ResourceError where they cannot be written."""
    path = temporary_folder()
    home = Home(path)
    run_folder.write_contents(path, files)
    return home


def temporary_folder() -> Path:
    """A new one, for a run whose files nobody asked to keep. Raises ResourceError where there can be none."""
    try:
        return Path(tempfile.mkdtemp(prefix="purejaxrl-"))
    except OSError as error:
        raise ResourceError(f"cannot make a temporary folder: {error.strerror or error}") from error


class HostState(NamedTuple):
    """The RunState of some runs as it is pickled: its leaves in order, keys as their bits."""

    runs: np.ndarray
    leaves: list[np.ndarray]

    def take(self, runs: np.ndarray) -> HostState:
        """That of some of these runs, by their numbers."""
        places = [self.runs.tolist().index(run) for run in runs.tolist()]
        return HostState(runs, [leaf[places] for leaf in self.leaves])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Runs of a training: all of them, or those that were selected.

    `result[3]`, `result[2:5]`, `select` and `best` are Results again, of some of the runs, and everything works on
    these, too. Where there are several runs, `policy` and `video` take the best one.

    path: the run folder; a temporary one, unless `out` was given, that lives as long as its Results: see `save`.
    facts: what summary.json holds of the whole training; {} where that has not ended. runs: the run numbers.
    stopped_by: the signal that came during the training, if one did.

    A Result can be pickled, as when it returns from a process pool. The objects of your own that it was trained with go
    along, and so must be pickled, too. A temporary folder goes along with its files; of any other only the path does.
    """

    path: Path
    facts: dict[str, Any]
    runs: np.ndarray
    stopped_by: int | None
    recorded: Recorded
    make_plan: Callable[[], Plan]
    whole_state: RunState | HostState | None = None
    home: Home | None = None

    def __getstate__(self) -> dict[str, Any]:
        from_fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return from_fields | {"whole_state": self._host_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.home is not None:
            self.__dict__["path"] = self.home.path

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Result]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, places: int | slice | Any) -> Result:
        """Some of these runs, by their places here: a number, a slice, a list or a mask, as numpy has it."""
        return dataclasses.replace(self, runs=np.atleast_1d(self.runs[places]))

    def __repr__(self) -> str:
        of = "" if len(self) == self.recorded.runs else f" of {self.recorded.runs}"
        settings = len(np.unique(self.recorded.setting_of(self.runs)))
        swept = f", {counted(settings, 'setting')}" if self.recorded.is_sweep else ""
        return f"<Result: {self.recorded.title}, {counted(len(self), 'run')}{of}{swept}, in {self.path}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the curves, the summary, and the policy moving; what cannot be had is left out."""
        from purejaxrl.analysis import html

        parts = []
        for show_part in (self._curves_as_html, lambda: self._film_as_html, self._table_as_html):
            # A notebook's cell must not end in an error because of how its result looks.
            with contextlib.suppress(Exception):
                parts.append(show_part())
        return html.page(repr(self)[1:-1], parts)

    def _curves_as_html(self) -> str:
        from matplotlib.figure import Figure

        from purejaxrl.analysis import html, plots

        with plots.default_style():
            figure = Figure(figsize=(8, 4.8), layout="constrained")
            self.plot(figure.subplots())
            return html.picture(figure)

    def _table_as_html(self) -> str:
        from purejaxrl.analysis import html

        frame = self.summary()
        return html.table(frame, [self.recorded.labels[setting] for setting in frame["setting"]])

    @functools.cached_property
    def _film_as_html(self) -> str:
        """At most 200 steps, so that it is there within seconds."""
        from purejaxrl.analysis import html
        from purejaxrl.storage import video_files

        pictures = self._film("last", 0, 200, *video_files.GIF)
        moving = video_files.gif(pictures, self._frame_seconds(video_files.GIF.every))
        return html.image(moving, "gif", "the policy at play", pictures[0].shape[1])

    @property
    def plan(self) -> Plan:
        """What was trained: agent, settings, environment. Raises InputError where an object of your own is missing."""
        return self.make_plan()

    @functools.cached_property
    def state(self) -> RunState | None:
        """The stacked RunState [runs, ...]: parameters, optimisers, replay, environments.

        None where the training was loaded, or cut into several batches.
        """
        if self.whole_state is None:
            return None
        if isinstance(self.whole_state, HostState):
            from purejaxrl.analysis.learned_params import state_of

            return state_of(self.plan, self.whole_state.take(self.runs).leaves)
        if np.array_equal(self.runs, np.arange(self.recorded.runs)):
            return self.whole_state
        import jax

        from purejaxrl.training.jax_settings import standard_jax

        with standard_jax():
            return jax.tree.map(lambda leaf: leaf[self.runs], self.whole_state)

    def _host_state(self) -> HostState | None:
        """What is pickled of `state`: that of these runs."""
        if self.whole_state is None:
            return None
        if isinstance(self.whole_state, HostState):
            return self.whole_state.take(self.runs)
        from purejaxrl.analysis.learned_params import host_leaves

        return HostState(np.arange(self.recorded.runs), host_leaves(self.whole_state)).take(self.runs)

    def frame(self) -> pd.DataFrame:
        """metrics.csv of these runs: one row per run and logging interval, swept hyperparameters as columns."""
        return self._rows("metrics.csv", "no interval of a training has ended yet")

    def episodes(self) -> pd.DataFrame:
        """episodes.csv of these runs: one row per episode. Raises InputError where episodes were not written."""
        return self._rows("episodes.csv", "above 256 runs it is written with episodes_log='on'")

    def _rows(self, name: str, hint: str) -> pd.DataFrame:
        file = self.path / name
        try:
            table = pd.read_csv(file)
            run = table["run"].to_numpy(np.int64)
        except FileNotFoundError:
            raise InputError(f"{self.path} holds no {name}; {hint}") from None
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"cannot read {file}: {reason(error)}") from error
        table = table[np.isin(run, self.runs)].reset_index(drop=True)
        setting = self.recorded.setting_of(table["run"].to_numpy(np.int64))
        for swept, values in self._swept().items():
            # A name that the file has already for something else stands as swept_NAME there.
            table[f"swept_{swept}" if f"swept_{swept}" in table else swept] = values[setting]
        return table

    def _swept(self) -> dict[str, np.ndarray]:
        """The swept hyperparameters as columns [settings]."""
        return {name: typed(values[name] for values in self.recorded.settings) for name in self.recorded.swept}

    def summary(self) -> pd.DataFrame:
        """One row per setting: swept hyperparameters, and what `results.statistics.describe` says of these runs.

        Interquartile means with 95% bootstrap intervals of final return and area under the curve, runs solved, env
        steps to solve, rank. Raises InputError where the training has not ended.
        """
        from purejaxrl.analysis.statistics import describe

        settings, scores = self._scores_by_setting()
        frame = describe(scores, self.facts["solved_at"] is not None, self.facts["stop_when_solved"])
        swept = {name: values[settings] for name, values in self._swept().items()}
        return pd.concat([pd.DataFrame({"setting": settings, **swept}), frame], axis=1)

    def _scores(self) -> Scores:
        """Scores of these runs. Raises InputError where there are none."""
        from purejaxrl.analysis.summary import facts_of

        if not len(self):
            raise InputError("no runs are selected")
        file = self.path / "summary.json"
        if not self.facts:
            raise InputError(f"{self.path} holds no summary.json: the training has not ended")
        try:
            scores = facts_of(self.facts).scores
            return type(scores)(*(values[self.runs] for values in scores))
        except (InputError, IndexError) as error:
            raise InputError(f"cannot use {file}: {error}") from error

    def _scores_by_setting(self) -> tuple[np.ndarray, list[Scores]]:
        scores, setting = self._scores(), self.recorded.setting_of(self.runs)
        settings = np.unique(setting)
        return settings, [type(scores)(*(values[setting == one] for values in scores)) for one in settings]

    def best(self) -> Result:
        """The best run, by what `summary` ranks settings by: the final return; the area under the curve where a run
        has none; env steps to solve where the training stopped runs that were solved.
        """
        from purejaxrl.analysis.statistics import best_run

        return self[best_run(self._scores(), bool(self.facts.get("stop_when_solved")))]

    def select(self, **values: Any) -> Result:
        """The runs of the settings with these swept values, and of a seed: `select(lr=3e-4, seed=1)`.

        A list allows several values; a tuple is one. Raises InputError where nothing has them.
        """
        settings = self.recorded.setting_of(self.runs)
        columns = {
            name: [self.recorded.settings[setting][name] for setting in settings] for name in self.recorded.swept
        }
        columns["seed"] = self.recorded.seed_of(self.runs).tolist()
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
        """Draw learning curves on matplotlib axes, new ones by default, and return these.

        The mean of 100 episodes: of one setting a faint line per run, their mean and a band of one standard deviation;
        of several the interquartile mean of each and the middle half of its runs, in one colour per setting, at most 8.
        column: another column of `frame`, as "loss". line_style: for the lines of means, as matplotlib has it; a label
        names them where several results share axes.
        """
        from purejaxrl.analysis import plots

        metrics, recorded = self.frame(), self.recorded
        if column is not None and column not in metrics.select_dtypes("number"):
            raise InputError(f"--column: {column} is no column of numbers; there are {', '.join(metrics.columns)}")
        if axes is None:
            import matplotlib.pyplot as plt

            axes = plt.figure(figsize=(8, 4.8), layout="constrained").subplots()
        settings = np.unique(recorded.setting_of(self.runs))
        style = {"solved_at": recorded.solved_at, "column": column, **line_style}
        # Curves with names of their own are there to share axes.
        title = recorded.env if "label" in line_style else recorded.title
        if len(settings) == 1:
            plots.draw_curve(axes, metrics, title, **style)
        else:
            of_run = recorded.setting_of(np.arange(recorded.runs))
            order = settings[np.argsort(self.summary()["rank"].to_numpy())] if self.facts else settings
            plots.draw_settings(axes, metrics, recorded.labels, order, of_run, title, **style)
        return axes

    @property
    def curve(self) -> Path:
        """The picture of the learning curves in the run folder."""
        return self.path / ("sweep.png" if self.recorded.is_sweep else "learning_curve.png")

    def policy(self, params: str = "last") -> Policy:
        """The greedy policy as a function observation -> action; of `best()` where there are several runs.

        params: `last`, or `best` by the evaluations during training. It takes what the environment's `reset` and
        `step` return, [..., *observation], for any leading axes: state vectors; or, of a training from images, the
        numbers [..., frames, D] that its frames are drawn from, as `purejaxrl.make(..., images=)` returns them.
        Of numpy arrays and lists it makes what gymnasium takes, of JAX arrays and tracers JAX arrays; see `Policy`.
        """
        import jax

        from purejaxrl.analysis.policy import Policy

        (batch,) = (self if len(self) == 1 else self.best())._learners(params)
        config, learned = jax.tree.map(lambda leaf: leaf[0], (batch.configs, batch.params))
        return Policy(self.plan.agent, config, batch.setting.env, learned)

    def _learners(self, params: str) -> list[Learners]:
        from purejaxrl.analysis.learned_params import learners_of
        from purejaxrl.training.devices import check_process

        check_process()
        return learners_of(self.path, self.plan, params, self.runs)

    def evaluate(self, episodes: int = 100, params: str = "last", seed: int = 0, backend: str = "gymnax") -> Evaluation:
        """Play whole episodes with the greedy policy of every run: mean return, 95% interval, all returns.

        Arguments as for `purejaxrl.evaluate`, which these returns are the same as.
        """
        from purejaxrl.analysis import evaluation

        episodes, seed = evaluation.check_arguments(episodes, seed, backend)
        if not len(self):
            raise InputError("no runs are selected")
        batches = self._learners(params)
        return evaluation.Evaluation.of(evaluation.play_all(self.plan, batches, episodes, seed, backend))

    def video(
        self, path: str | Path = "best.gif", *, params: str = "last", seed: int = 0, max_steps: int = 500
    ) -> Path:
        """Film one episode of the greedy policy, of `best()` where there are several runs, and return the film's path.

        A GIF of 300 x 200 shows every second step for 0.04 s, an MP4 of 600 x 400 every step for 0.02 s: CartPole's own
        speed. An MP4 needs ffmpeg on the PATH. params: as for `policy`. seed decides where the episode begins; it is
        cut after max_steps. Raises InputError where the environment cannot be drawn: CartPole can be, and what was
        trained with a renderer=.
        """
        from purejaxrl.storage import video_files

        path = absolute_path(path)
        video_files.check_target("--path", path)
        cut = video_files.GIF if path.suffix.lower() == ".gif" else video_files.MP4
        video_files.write(path, self._film(params, seed, max_steps, *cut), self._frame_seconds(cut.every))
        return path

    def _film(self, params: str, seed: int, max_steps: int, every: int, shrink: int) -> list[np.ndarray]:
        from purejaxrl.analysis import video

        video.check_drawable(self.plan)
        (batch,) = (self if len(self) == 1 else self.best())._learners(params)
        return video.film(self.plan, batch, seed=seed, max_steps=max_steps, every=every, shrink=shrink)

    def _frame_seconds(self, every: int) -> float:
        """Seconds that a frame of a video is shown where one of `every` steps is one: in real time."""
        from purejaxrl.envs import find_renderer

        return every * find_renderer(self.plan.env, self.plan.options.renderer).step_seconds

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Copy the run folder, all runs of it, and return where it is now.

        Raises InputError where the path is taken, unless an earlier run's may be overwritten, and ResourceError where
        the disk is full.
        """
        if path == "":
            raise InputError("save: '' is not allowed; give a folder")
        path = absolute_path(path)
        if path.resolve() == self.path.resolve():
            raise InputError(f"save: {path} is where the run is already; give another folder")
        run_folder.copy(self.path, path, overwrite=overwrite)
        return path
