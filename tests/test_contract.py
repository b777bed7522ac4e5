"""What the contract of an Agent carries: agents that need extras, a recurrent state, or a memory of their own."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents import ppo, prioritized, recurrent

import purejaxrl
from purejaxrl import Discrete, Env, Timestep
from purejaxrl.agents import a3c, dqn, vpg
from purejaxrl.components.distributions import categorical_log_prob
from purejaxrl.components.hyperparameters import find_budget
from purejaxrl.errors import InputError
from purejaxrl.experiment.validation import uses_fraction
from purejaxrl.training.loop import init_run, iterate
from purejaxrl.training.rollout import reset_carry, rollout
from purejaxrl.types import Progress

SMALL = {
    "ppo": (ppo.agent, {"env_steps": 2048, "t_max": 32, "hidden_size": 8}),
    "recurrent": (recurrent.agent, {"env_steps": 1024, "units": 8}),
    "prioritized": (prioritized.agent, {"env_steps": 512, "capacity": 256, "hidden_size": 8}),
}
EACH = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name != "recurrent" else name for name in SMALL]
)
AT = Progress(jnp.int32(0), jnp.int32(0), jnp.float32(0), jnp.int32(0))


def cue(delay):
    """An environment whose first observation, +1 or -1, says what the last of `delay` actions must be.

    The others are 0, so that who remembers nothing has a mean return of 1/2.
    """

    def observe(side, t):
        return jnp.where(t == 0, 2.0 * side - 1.0, 0.0)[None]

    def reset(key):
        side = jax.random.bernoulli(key).astype(jnp.int32)
        return observe(side, 0), (side, jnp.zeros((), jnp.int32))

    def step(key, state, action):
        side, t = state
        is_last = t + 1 == delay
        reward = jnp.where(is_last & (action == side), 1.0, 0.0)
        following = (observe(side, t + 1), (side, t + 1))
        fresh = reset(key)
        observation, state = jax.tree.map(lambda new, old: jnp.where(is_last, new, old), fresh, following)
        return Timestep(state, observation, reward, is_last, jnp.zeros((), bool), following[0])

    return Env("Cue", (1,), Discrete(2), delay, None, reset, step)


@EACH
def test_everything_works_for_them(name, tmp_path):
    """Training, sweeping, evaluating, exporting, resuming and extending, as for the package's own."""
    agent, options = SMALL[name]
    out = tmp_path / "run"
    result = purejaxrl.train(agent, seeds=3, eval_every=256, eval_episodes=2, out=out, **options)
    assert result.summary_json["runs_ok"] == 3
    assert result.frame()["loss"].notna().any()
    returns = purejaxrl.load(out, agent=agent).evaluate(episodes=3).returns
    assert returns["return"].between(1, 200).all()
    params, _ = purejaxrl.export(out, agent=agent)
    assert params.exists()
    longer = {**options, "env_steps": 2 * options["env_steps"]}
    extended = purejaxrl.resume(out, agent=agent, extend=longer["env_steps"])
    whole = purejaxrl.train(agent, seeds=3, eval_every=256, eval_episodes=2, **longer)
    chex.assert_trees_all_equal(extended.state.learner, whole.state.learner)
    assert extended.frame().equals(whole.frame())
    swept = purejaxrl.sweep(agent, seeds=2, lr=[1e-3, 1e-2], **options)
    assert swept.summary_json["programs"] == 1


def test_extras_travel_with_the_step_that_they_belong_to():
    """PPO's old log-probabilities and values are those of the recorded observations and actions."""
    config, env = ppo.Config(t_max=16), purejaxrl.make("CartPole-v0")
    state = init_run(ppo.agent, env, config, jax.random.key(0))
    _, batch, _ = rollout(ppo.agent, env, config, state, AT, jax.random.key(1))
    logits, value = ppo.network(state.learner.params, batch.observation)
    np.testing.assert_allclose(batch.extras["log_prob"], categorical_log_prob(logits, batch.action), rtol=1e-5)
    np.testing.assert_allclose(batch.extras["value"], value, rtol=1e-5)
    # So the first gradient step sees ratios of 1.
    _, metrics = ppo.update(config, env, state.learner, batch, AT, jax.random.key(2))
    assert float(metrics["first_ratio"]) == pytest.approx(1.0, abs=1e-5)


def test_a_recurrent_state_is_reset_with_every_episode():
    """Each actor's, where its own episode ends, and with the observation that it acts on."""
    config, env = recurrent.Config(actors=3, t_max=12), cue(4)
    state = init_run(recurrent.agent, env, config, jax.random.key(0))
    after, batch, _ = rollout(recurrent.agent, env, config, state, AT, jax.random.key(1))
    carries = np.asarray(batch.extras)
    is_start = np.arange(12) % 4 == 0
    assert (carries[is_start] == 0).all()
    assert (np.abs(carries[~is_start]).max(axis=-1) > 0).all()
    assert (np.asarray(after.carry) == 0).all()
    _, _, expected = recurrent.network(config, state.learner.params, batch.observation[4], batch.extras[4])
    np.testing.assert_allclose(carries[5], expected, rtol=1e-6)
    # What `update` computes again is what `act` did.
    logits, _, _ = recurrent.unroll(config, state.learner.params, batch)
    expected = recurrent.network(config, state.learner.params, batch.observation[6], batch.extras[6])[0]
    np.testing.assert_allclose(logits[6], expected, rtol=1e-5)
    done = jnp.array([True, False, False])
    kept = reset_carry(recurrent.agent, env, config, jnp.ones((3, 16)), done)
    assert kept[:, 0].tolist() == [0, 1, 1]


@pytest.mark.slow
def test_only_the_recurrent_agent_remembers_a_cue():
    """Four steps between the cue and the action that it asks for: 8 seeds each, all of them."""
    settings = {"env": cue(4), "env_steps": 60_000, "seeds": 8, "episodes_log": "off"}
    remembering = purejaxrl.train(recurrent.agent, **settings)
    forgetting = purejaxrl.train(recurrent.agent, is_recurrent=False, **settings)
    assert np.min(remembering.summary_json["final_return_per_run"]) > 0.9
    assert np.max(forgetting.summary_json["final_return_per_run"]) < 0.75
    assert remembering.evaluate(episodes=50).mean > 0.95


def test_a_recurrent_policy_is_stepped():
    config, env = recurrent.Config(units=8), purejaxrl.make("CartPole-v0")
    result = purejaxrl.train(recurrent.agent, env_steps=512, units=8)
    policy = result.policy()
    with pytest.raises(InputError, match="recurrent is recurrent; call carry = "):
        policy(np.zeros(4))
    carry = policy.initial_carry()
    action, carry = policy.step(np.ones(4), carry)
    assert type(action) is int
    assert np.abs(carry).max() > 0
    expected = recurrent.policy(config, env, policy.params, jnp.ones(4), jnp.zeros(8))
    np.testing.assert_allclose(carry, expected.carry, rtol=1e-6)
    actions, carries = policy.step(np.ones((5, 4)), policy.initial_carry((5,)))
    assert actions.shape == (5,)
    assert carries.shape == (5, 8)


def test_memory_of_any_type_is_written_on_after_a_run_has_ended():
    """Choosing between old and new memory would copy it, so a frozen run's is still written; the rest is frozen."""
    config, env = prioritized.Config(capacity=64, hidden_size=4, actors=2), purejaxrl.make("CartPole-v0")
    state = init_run(prioritized.agent, env, config, jax.random.key(0))
    frozen = state._replace(active=jnp.zeros((), bool))
    after, _ = iterate(prioritized.agent, env, config, frozen, jnp.int32(3), find_budget(config))
    chex.assert_trees_all_equal(after.learner._replace(memory=None), state.learner._replace(memory=None))
    assert np.flatnonzero(after.learner.memory.priority).tolist() == [6, 7]


def test_a_schedule_over_the_budget_is_found_in_the_program():
    env = purejaxrl.make("CartPole-v0")
    for module in (vpg, a3c, dqn, ppo):
        agent, config = module.agent, module.Config()
        assert uses_fraction(agent, config, env) is None
        assert uses_fraction(agent, dataclasses.replace(config, lr_anneal=True), env) == "update"

    def act(config, env, learner, observation, carry, progress, key):
        output = ppo.act(config, env, learner, observation, carry, progress, key)
        return output._replace(action=jnp.where(progress.fraction > 0.5, output.action, 0))

    @jax.jit
    def passed_on(progress, learner):
        return jax.tree.map(lambda leaf: leaf + 0.0 * progress.env_steps, learner)

    def update(config, env, learner, batch, progress, key):
        after, metrics = ppo.update(config, env, learner, batch, progress, key)
        return after._replace(params=passed_on(progress, after.params)), metrics

    assert uses_fraction(ppo.agent._replace(act=act), ppo.Config(), env) == "act"
    # A function that is given all of `progress` and uses another part of it.
    assert uses_fraction(ppo.agent._replace(update=update), ppo.Config(), env) is None


def test_a_training_whose_schedule_depends_on_the_budget_is_not_extended(tmp_path):
    options = {**SMALL["ppo"][1], "lr_anneal": True}
    purejaxrl.train(ppo.agent, out=tmp_path / "run", **options)
    words = r"extend: update of ppo depends on the share of the budget that is used \(progress.fraction\)"
    with pytest.raises(InputError, match=words):
        purejaxrl.resume(tmp_path / "run", agent=ppo.agent, extend=4096)


@pytest.mark.slow
def test_ppo_and_prioritized_replay_learn_cartpole():
    """Of 8 seeds all but one at least reach a mean return of 150 of 200, within a minute."""
    for agent, env_steps in ((ppo.agent, 100_000), (prioritized.agent, 60_000)):
        result = purejaxrl.train(agent, seeds=8, env_steps=env_steps, episodes_log="off")
        assert np.sum(np.array(result.summary_json["final_return_per_run"]) > 150) >= 7
