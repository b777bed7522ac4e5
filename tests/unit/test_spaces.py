"""Default spaces: what they hold, and which agents have one."""

import jax
import pytest
from probes import Alone, Wider

from purejaxrl.agents import AGENTS, a3c, dqn
from purejaxrl.errors import InputError
from purejaxrl.experiment.plan import plan_sweep
from purejaxrl.experiment.presets import TUNED
from purejaxrl.experiment.settings import Range
from purejaxrl.experiment.spaces import default_space
from purejaxrl.types import Agent


@pytest.mark.parametrize("name", AGENTS)
def test_all_settings_share_one_program(name):
    options = {"env": "CartPole-v1", "observation_type": "default", "env_steps": 100_000, "random": 20}
    plan = plan_sweep(name, **options, **default_space(AGENTS[name]))
    assert len({jax.tree.structure(setting.config) for setting in plan.settings}) == 1
    assert len({str(setting.config) for setting in plan.settings}) == 20


@pytest.mark.parametrize("name", AGENTS)
def test_learning_rates_and_reward_scales_of_the_tuned_presets_are_within(name):
    """Those of vectors on CartPole, that is: settings that are known to learn."""
    for key, values in TUNED.items():
        if key[0] == name and key[1].startswith("CartPole") and key[2] == "default":
            for field, source in default_space(AGENTS[name]).items():
                value = values.get(field, getattr(AGENTS[name].Config(), field))
                if isinstance(source, Range):
                    assert source.low <= value <= source.high, field
                elif field in ("lr_anneal", "t_max", "train_v_iters", "steps_per_epoch", "eps_vals", "actors"):
                    assert value in source, field


def test_an_agent_has_the_space_of_the_config_that_it_extends():
    assert default_space(dqn.agent._replace(name="mine", Config=Wider)) == default_space(dqn.agent)
    assert default_space(a3c.agent._replace(name="dqn")) == default_space(a3c.agent)


def test_a_space_is_a_new_one_each_time():
    default_space(dqn.agent).clear()
    assert default_space(dqn.agent)


def test_another_agent_has_none():
    parts = dict.fromkeys(Agent._fields[2:8])
    with pytest.raises(InputError) as caught:
        default_space(Agent("alone", Alone, **parts))
    assert str(caught.value) == "norm: alone has no default space of hyperparameters; give lists or ranges"
