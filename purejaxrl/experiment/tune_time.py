"""Searches with a time limit: what they try follows from how fast this machine trains, which is measured."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any, NamedTuple

import jax

from purejaxrl.errors import InputError, log, warn
from purejaxrl.experiment.cluster import Workers
from purejaxrl.experiment.plan_from_config import objects_of
from purejaxrl.experiment.run import devices_at_hand
from purejaxrl.experiment.search import SearchSpec, count_env_steps, plan_rungs
from purejaxrl.experiment.settings import MAX_RUNS
from purejaxrl.experiment.shards import Leg, Trained, slice_of, train_shard
from purejaxrl.experiment.tune import Deadline, end_seconds, group_runs
from purejaxrl.experiment.tune_plan import TunePlan, parse_duration
from purejaxrl.training.batches import group_settings, take
from purejaxrl.training.jax_settings import standard_jax

# Where the budget is free it is chosen so that there is time for so many settings.
USUAL_SETTINGS = 64
# More would begin with a share of the budget in which little is learned.
MAX_SETTINGS = 256
# Where the budget is given, the confirmation takes no more than this share of the time.
CONFIRMATION_SHARE = 1 / 3
PROBE_SECONDS = 1.0


class Choice(NamedTuple):
    """What there is time for: the number of settings, the budget of a run, and the seeds of the confirmation."""

    settings: int
    env_steps: int
    confirm_seeds: int


def choose(spec: SearchSpec, confirm_seeds: int, env_steps: float, *, is_budget_given: bool) -> Choice:
    """Choose what a number of env steps suffices for.

    The budget is that of the search, or less where it is not given and would leave no time for USUAL_SETTINGS settings.
    Where it is given, fewer fresh seeds confirm the winner. The rest of the time goes into settings.

    Args:
        spec: The search.
        confirm_seeds: Seeds of the confirmation.
        env_steps: Env steps of the search and the confirmation together.
        is_budget_given: Whether the user has given the budget.

    Returns:
        The choice, at least 2 eta settings.
    """
    budget = spec.env_steps
    if is_budget_given:
        confirm_seeds = min(confirm_seeds, max(int(CONFIRMATION_SHARE * env_steps / (2 * budget)), 2))
    else:
        usual = spec._replace(settings=USUAL_SETTINGS)
        relative = count_env_steps(plan_rungs(usual)) / budget + 2 * confirm_seeds
        affordable = max(int(env_steps / relative), spec.eta**2 * spec.iteration)
        budget = min(budget, _round_down(affordable))
    left = env_steps - 2 * confirm_seeds * budget
    settings = 2 * spec.eta
    for count in _candidates(settings, min(MAX_SETTINGS, MAX_RUNS // spec.seeds)):
        if count_env_steps(plan_rungs(spec._replace(settings=count, env_steps=budget))) <= left:
            settings = count
    return Choice(settings, budget, confirm_seeds)


def _round_down(number: int) -> int:
    """Round a whole number down to two significant digits."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return number // unit * unit


def _candidates(least: int, most: int) -> list[int]:
    """Numbers of settings, each about a tenth more than the one before."""
    numbers = [least]
    while numbers[-1] < most:
        numbers.append(min(math.ceil(numbers[-1] * 1.1), most))
    return numbers


def measure(tune: TunePlan, local: list[jax.Device]) -> tuple[float, float]:
    """Measure how long the first program takes to compile, and how fast it trains.

    Args:
        tune: The search.
        local: The devices.

    Returns:
        Seconds, and env steps per second of runs side by side.
    """
    plan, group = tune.plan, group_runs(tune, local, is_here=True)[0]
    batch = take(group.batch, slice(0, group.width))
    task, objects, iterations = group.description | slice_of(batch), objects_of(plan), 1
    # The first call after compilation is slow.
    compile_seconds = _train(task, objects, 1).compile_seconds
    while True:
        trained = _train(task, objects, iterations)
        if trained.seconds > PROBE_SECONDS or iterations * group.setting.steps >= tune.spec.env_steps:
            return compile_seconds, int(trained.stats.env_steps.sum()) / trained.seconds
        iterations *= 2 if trained.seconds > PROBE_SECONDS / 8 else 8


def _train(task: dict[str, Any], objects: dict[str, Any], iterations: int) -> Trained:
    """Train runs for some iterations."""
    return train_shard(task | {"leg": Leg(0, iterations, returns_states=False)._asdict()}, objects)


@standard_jax()
def plan_in_time(
    make_plan: partial[TunePlan], planned: TunePlan, executor: Workers | None, started: float
) -> tuple[TunePlan, Deadline]:
    """Plan a search that ends in time, by how fast this machine trains.

    Args:
        make_plan: Makes the plan, given `settings`, `env_steps` and `confirm_seeds`.
        planned: The plan without them.
        executor: An Executor whose workers train, which is not allowed.
        started: When the command began, as `time.perf_counter` had it.

    Returns:
        The plan, and when it is to end.

    Raises:
        InputError: If there is an Executor, or if there are settings, too.
    """
    search = planned.search
    limit = parse_duration(str(search.time))
    if executor is not None:
        raise InputError("--time: it is measured on this machine; with --cluster, give --settings and --env_steps")
    if search.settings is not None:
        raise InputError(f"--time: it decides how many settings there are; leave --settings {search.settings} out")
    local = devices_at_hand(planned.plan, executor)
    compile_seconds, rate = measure(planned, local)
    # The preset, which is trained beside the winner, may have one of its own.
    programs = len(group_settings([*(setting.config for setting in planned.plan.settings), planned.baseline]))
    deadline = Deadline(started + limit - (programs - 1) * compile_seconds, rate)
    seconds = deadline.at - time.perf_counter() - end_seconds(USUAL_SETTINGS)
    is_budget_given = make_plan.keywords.get("env_steps") is not None
    choice = choose(planned.spec, search.confirm_seeds, seconds * rate, is_budget_given=is_budget_given)
    least = planned.spec._replace(settings=choice.settings, env_steps=choice.env_steps)
    needed = count_env_steps(plan_rungs(least)) + 2 * choice.confirm_seeds * choice.env_steps
    if needed > max(seconds, 0) * rate and choice.settings == 2 * search.eta:
        raise InputError(
            f"--time: {search.time} is too short; {choice.settings} settings and the confirmation take "
            f"{limit - seconds + needed / rate:.0f} s here"
        )
    if choice.confirm_seeds < search.confirm_seeds:
        warn(f"--confirm_seeds: there is time for {choice.confirm_seeds} of {search.confirm_seeds}", stacklevel=4)
    log("%.0f env steps per second, compiled in %.1f s: %s", rate, compile_seconds, choice)
    return make_plan(**choice._asdict()), deadline
