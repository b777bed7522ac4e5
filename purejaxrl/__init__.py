"""Deep reinforcement learning as pure functions in JAX.

Names are imported when they are first used, so that importing the package, and the command line's help, stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purejaxrl.agents import AGENTS as AGENTS
    from purejaxrl.analysis.evaluation import Evaluation as Evaluation
    from purejaxrl.analysis.evaluation import evaluate as evaluate
    from purejaxrl.analysis.export import export as export
    from purejaxrl.analysis.result import Result as Result
    from purejaxrl.analysis.result import load as load
    from purejaxrl.api import make_train as make_train
    from purejaxrl.api import resume as resume
    from purejaxrl.api import sweep as sweep
    from purejaxrl.api import train as train
    from purejaxrl.api import tune as tune
    from purejaxrl.components.hyperparameters import ImageConfig as ImageConfig
    from purejaxrl.components.hyperparameters import Real as Real
    from purejaxrl.components.hyperparameters import budget as budget
    from purejaxrl.components.hyperparameters import config as config
    from purejaxrl.components.hyperparameters import leaf as leaf
    from purejaxrl.components.hyperparameters import static as static
    from purejaxrl.envs import Images as Images
    from purejaxrl.envs import PixelObservation as PixelObservation
    from purejaxrl.envs import Renderer as Renderer
    from purejaxrl.envs import from_stoa as from_stoa
    from purejaxrl.envs import make as make
    from purejaxrl.errors import InputError as InputError
    from purejaxrl.experiment.loggers import TensorBoard as TensorBoard
    from purejaxrl.experiment.loggers import Wandb as Wandb
    from purejaxrl.experiment.settings import Range as Range
    from purejaxrl.training.compilation_cache import configure as configure
    from purejaxrl.training.programs import clear_programs as clear_programs
    from purejaxrl.types import ActorOutput as ActorOutput
    from purejaxrl.types import Agent as Agent
    from purejaxrl.types import Continuous as Continuous
    from purejaxrl.types import Discrete as Discrete
    from purejaxrl.types import Env as Env
    from purejaxrl.types import Learner as Learner
    from purejaxrl.types import Progress as Progress
    from purejaxrl.types import Timestep as Timestep
    from purejaxrl.types import Transition as Transition

__version__ = "0.1.0"

# The module that each name of the package is imported from when it is first used.
HOMES = {
    "ActorOutput": "purejaxrl.types",
    "Agent": "purejaxrl.types",
    "AGENTS": "purejaxrl.agents",
    "budget": "purejaxrl.components.hyperparameters",
    "clear_programs": "purejaxrl.training.programs",
    "config": "purejaxrl.components.hyperparameters",
    "configure": "purejaxrl.training.compilation_cache",
    "Continuous": "purejaxrl.types",
    "Discrete": "purejaxrl.types",
    "Env": "purejaxrl.types",
    "evaluate": "purejaxrl.analysis.evaluation",
    "Evaluation": "purejaxrl.analysis.evaluation",
    "export": "purejaxrl.analysis.export",
    "from_stoa": "purejaxrl.envs",
    "ImageConfig": "purejaxrl.components.hyperparameters",
    "Images": "purejaxrl.envs",
    "InputError": "purejaxrl.errors",
    "leaf": "purejaxrl.components.hyperparameters",
    "Learner": "purejaxrl.types",
    "load": "purejaxrl.analysis.result",
    "make": "purejaxrl.envs",
    "make_train": "purejaxrl.api",
    "PixelObservation": "purejaxrl.envs",
    "Progress": "purejaxrl.types",
    "Range": "purejaxrl.experiment.settings",
    "Real": "purejaxrl.components.hyperparameters",
    "Renderer": "purejaxrl.envs",
    "Result": "purejaxrl.analysis.result",
    "resume": "purejaxrl.api",
    "static": "purejaxrl.components.hyperparameters",
    "sweep": "purejaxrl.api",
    "TensorBoard": "purejaxrl.experiment.loggers",
    "Timestep": "purejaxrl.types",
    "train": "purejaxrl.api",
    "Transition": "purejaxrl.types",
    "tune": "purejaxrl.api",
    "Wandb": "purejaxrl.experiment.loggers",
}

__all__ = [*HOMES]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'purejaxrl' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
