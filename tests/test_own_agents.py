"""Agents of a user's own: the variants of the page in docs/, whose presets they have, and what is checked."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PROGRESS, run_page
from probes import Alone, Wider

import purejaxrl
from purejaxrl.agents import AGENTS, a3c, dqn, vpg
from purejaxrl.components.hyperparameters import Real, budget, config, leaf, static
from purejaxrl.components.returns import generalized_advantages
from purejaxrl.errors import InputError
from purejaxrl.experiment.plan import plan_sweep, plan_train
from purejaxrl.experiment.validation import check_agent, check_metrics, check_record, check_same
from purejaxrl.training.metrics import METRIC_COLUMNS
from purejaxrl.types import ActorOutput, Learner, Transition


@pytest.fixture(scope="module")
def cartpole():
    return purejaxrl.make("CartPole-v0")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the page defines, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("page")
    return run_page("write-your-own-agent.md", folder), folder


@pytest.mark.slow
def test_double_dqn_of_the_page_is_the_one_that_dqn_has(page):
    names, folder = page
    own = {"preset": "tuned", "lr": [1e-3, 3e-4], "seeds": 2, "env_steps": 2000, "double_q": True}
    result = purejaxrl.sweep("dqn", **own)
    assert (result.path / "metrics.csv").read_bytes() == (folder / "results/double-dqn/metrics.csv").read_bytes()
    assert sorted(names["returns"]["run"].unique()) == [0, 1, 2, 3]
    assert (folder / "results/double-dqn/sweep.png").exists()
    with pytest.raises(InputError, match="agent of your own; give it as agent="):
        purejaxrl.evaluate(folder / "results/double-dqn")
    assert tuple(result.frame())[: len(METRIC_COLUMNS)] == ("run", "seed", *METRIC_COLUMNS[2:])


@pytest.mark.slow
def test_the_weighted_loss_of_the_page(page, cartpole):
    """-mean(log pi(a|s) min(exp(A / temperature), 20)) - entropy_coef H, in numpy."""
    names, _ = page
    settings = names["Config"](temperature=0.5, entropy_coef=0.1, hidden_sizes=(4,))
    params = vpg.init(settings, cartpole, jax.random.key(0)).params.pi
    observation = jax.random.normal(jax.random.key(1), (5, 2, 4))
    action, advantage = jnp.arange(10).reshape(5, 2) % 2, jnp.linspace(-1.0, 2.0, 10).reshape(5, 2)
    batch = Transition(observation, action, advantage, action > 2, action > 2, observation)
    loss, entropy = names["weighted_loss"](settings, cartpole, params, batch, advantage)
    logits = np.asarray(vpg.action_distribution(settings, cartpole, params, observation), float)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    weight = np.minimum(np.exp(np.linspace(-1.0, 2.0, 10).reshape(5, 2) / 0.5), 20)
    assert weight.max() == 20
    taken = np.take_along_axis(log_probs, np.asarray(action)[..., None], -1)[..., 0]
    assert float(entropy) == pytest.approx(-(np.exp(log_probs) * log_probs).sum(-1).mean(), rel=1e-5)
    assert float(loss) == pytest.approx(-(taken * weight).mean() - 0.1 * float(entropy), rel=1e-5)


@pytest.mark.slow
def test_a_custom_hyperparameter_is_swept_in_one_program(page):
    names, _ = page
    plan = plan_sweep(names["weighted_vpg"], temperature=[0.5, 1.0], preset="tuned")
    structures = {jax.tree.structure(setting.config) for setting in plan.settings}
    assert len(structures) == 1
    assert [setting.config.temperature for setting in plan.settings] == [0.5, 1.0]
    with pytest.raises(InputError, match="temperature: 0 is not allowed; it takes a finite number above 0"):
        plan_train(names["weighted_vpg"], temperature=0.0)


@pytest.mark.slow
def test_the_agent_from_scratch_follows_the_score_function(page, cartpole):
    """One update moves the weights by lr times the mean of (R - mean R) times the gradient of log pi, by hand."""
    names, _ = page
    settings = names["LinearConfig"](gamma=0.0, lr=0.5)
    observation = jax.random.normal(jax.random.key(1), (3, 2, 4))
    action, reward, no = jnp.array([[0, 1], [1, 1], [0, 0]]), jnp.arange(6.0).reshape(3, 2), jnp.zeros((3, 2), bool)
    batch = Transition(observation, action, reward, no, no, observation)
    learner = names["init"](settings, cartpole, jax.random.key(0))
    after, _ = names["update"](settings, cartpole, learner, batch, PROGRESS, jax.random.key(2))
    score = np.eye(2)[np.asarray(action)] - 0.5
    expected = np.einsum("tn,tno,tna->oa", np.asarray(reward) - 2.5, np.asarray(observation), score) / 6
    np.testing.assert_allclose(after.params, 0.5 * expected, rtol=1e-5)
    assert names["result"].frame()["return_mean"].notna().all()


def test_vpg_takes_another_advantage(cartpole):
    """With an advantage of 0 the policy stays where it is, and the value function learns as ever."""
    settings = vpg.Config(steps_per_epoch=6, actors=2, train_v_iters=1, hidden_sizes=(4,))
    learner = vpg.init(settings, cartpole, jax.random.key(0))
    observation = jax.random.normal(jax.random.key(1), (3, 2, 4))
    nothing, no = jnp.zeros((3, 2)), jnp.zeros((3, 2), bool)
    batch = Transition(observation, jnp.zeros((3, 2), int), nothing + 1.0, no, no, observation)

    def none(config, batch, value, next_value):
        assert value.shape == next_value.shape == batch.reward.shape
        return jnp.zeros_like(value)

    after, _ = vpg.update(settings, cartpole, learner, batch, PROGRESS, jax.random.key(2), advantage=none)
    chex.assert_trees_all_equal(after.params.pi, learner.params.pi)
    assert np.abs(after.params.v["kernel_0"] - learner.params.v["kernel_0"]).max() > 1e-4


@pytest.mark.slow
def test_presets_go_with_the_config_whatever_the_agent_is_called():
    """A renamed variant observes what its origin does, and has its tuned values."""
    assert plan_train("dqn").options.observation_type == "img"
    for own in (dqn.agent._replace(name="mine"), dqn.agent._replace(name="mine", Config=Wider)):
        assert plan_train(own).options.observation_type == "img"
        tuned, theirs = (plan_train(agent, preset="tuned").settings[0].config for agent in (own, "dqn"))
        assert {name: getattr(tuned, name) for name in vars(theirs)} == vars(theirs)
    sync = plan_train(a3c.agent._replace(name="a2c"), preset="tuned", mode="sync").settings[0].config
    assert sync.lr == 7e-3
    assert plan_train(vpg.agent._replace(name="dqn")).options.observation_type == "default"
    with pytest.raises(InputError, match="tuned has no entry for alone"):
        plan_train(of_alone(), preset="tuned")


def of_alone(**parts):
    """A whole agent whose learner is one array."""
    functions = {
        "name": "alone",
        "Config": Alone,
        "check": lambda config, env: None,
        "rollout_shape": lambda config: (3, config.actors),
        "init": lambda config, env, key: Learner({"w": jnp.zeros(4)}),
        "act": lambda config, env, learner, observation, *_: ActorOutput(jnp.zeros(len(observation), int)),
        "policy": lambda config, env, params, observation, carry: ActorOutput(jnp.zeros(observation.shape[:-1], int)),
        "update": lambda config, env, learner, batch, progress, key: (learner, {"loss": jnp.mean(batch.reward)}),
    }
    return purejaxrl.Agent(**(functions | parts))


def test_what_fits_passes(cartpole):
    pendulum = purejaxrl.make("Pendulum-v1")
    for module, envs in ((dqn, [cartpole]), (vpg, [cartpole, pendulum]), (a3c, [cartpole, pendulum])):
        for env in envs:
            check_agent(module.agent._replace(name="mine"), module.Config(), env)
    check_record(of_alone())
    check_agent(of_alone(), Alone(), cartpole)
    # The package's own agents are not looked at.
    for agent in AGENTS.values():
        check_agent(agent, None, cartpole)


def undecorated():
    class Plain(dqn.Config):
        beta: Real = leaf(0.5, "something", above=0)

    return Plain


@config
class NoBudget:
    actors: int = static(2, "environments", at_least=1)


@config
class OtherBudget:
    weeks: int = budget(2, "weeks")


def acting(action, extras=(), carry=()):
    return lambda *_: ActorOutput(action, extras, carry)


def updating_to(params, **metrics):
    return lambda config, env, old, batch, progress, key: (Learner(params), metrics)


WRONG = [
    ({"name": ""}, "name is a str; it must be a text"),
    ({"summary": None}, "summary is a NoneType; it must be a text"),
    ({"act": None}, r"act is None; it must be a function \(config, env, learner, observation, carry, progress, key\)"),
    ({"Config": int}, "Config must be made with @config, leaf and static; <class 'int'> is not"),
    ({"Config": undecorated()}, "Config must be made with @config"),
    (
        {"Config": NoBudget},
        "Config has no budget; it needs a field made with purejaxrl.budget, .* epochs, episodes, env_steps",
    ),
    ({"Config": OtherBudget}, "a budget weeks is not known; use one of epochs, episodes, env_steps"),
    ({"rollout_shape": lambda config: 5}, r"rollout_shape returned 5; it must return \(steps, actors\)"),
    ({"rollout_shape": lambda config: (2, 0)}, r"rollout_shape returned \(2, 0\)"),
    ({"rollout_shape": lambda: (2, 2)}, "rollout_shape.config. raised TypeError"),
    ({"init": lambda *_: Learner({"w": "text"})}, "init.* returned a str at params/w; it must return arrays"),
    ({"init": lambda *_: {"w": jnp.zeros(4)}}, "init returned a dict; it must return a purejaxrl.Learner"),
    ({"init": lambda config, env: {}}, "init.config, env, key. raised TypeError"),
    ({"act": acting(jnp.zeros(2))}, r"act returned float32\[2\]; CartPole-v0 takes whole numbers of shape \[2\]"),
    ({"act": acting(jnp.zeros(3, int))}, r"act returned int32\[3\]; CartPole-v0 takes whole numbers of shape \[2\]"),
    ({"act": lambda *_: jnp.zeros(2, int)}, "act returned .*; it must return a purejaxrl.ActorOutput"),
    ({"act": lambda *_: None}, "act returned None; it must return a purejaxrl.ActorOutput"),
    (
        {"act": acting(jnp.zeros(2, int), {"p": jnp.zeros(3)})},
        r"extras p as float32\[3\]; the first axis is .* 2 actors",
    ),
    (
        {"act": acting(jnp.zeros(2, int), (), jnp.zeros(2))},
        r"returned the carry as float32\[2\]; initial_carry made it",
    ),
    ({"policy": acting(jnp.zeros((), int))}, r"policy of observations \[3, 4\] returned int32\[\]"),
    (
        {"update": lambda *_: {"w": jnp.zeros(4)}},
        r"update returned a dict; it must return \(Learner, metrics by name\)",
    ),
    (
        {"update": lambda *_: ({"w": jnp.zeros(4)}, {})},
        "update, as the first of two, returned a dict; it must return a",
    ),
    ({"update": updating_to({"w": jnp.zeros(5)})}, r"returned params/w as float32\[5\]; init made it float32\[4\]"),
    ({"update": updating_to({"w": jnp.zeros(4, int)})}, r"returned params/w as int32\[4\]; init made it float32\[4\]"),
    ({"update": updating_to({})}, r"returned params/w as nothing; init made it float32\[4\]"),
    ({"update": updating_to({"w": jnp.zeros(4), "v": 1.0})}, "returned params/v as float32.*; init made it nothing"),
    ({"update": updating_to({"w": jnp.zeros(4)}, run=1.0)}, "metric 'run'; metrics.csv has a column of that name"),
    ({"update": updating_to({"w": jnp.zeros(4)}, x=jnp.zeros(3))}, r"x as float32\[3\]; it must be one number"),
    ({"update": lambda *_: 1 / 0}, "update.* raised ZeroDivisionError: division by zero"),
]


@pytest.mark.parametrize(("parts", "words"), WRONG)
def test_what_is_wrong_is_said_in_a_line(parts, words):
    with pytest.raises(InputError, match=words) as caught:
        purejaxrl.train(of_alone(**parts))
    text = str(caught.value)
    assert text.startswith("agent ")
    assert "\n" not in text
    assert ("raised" in text) == (caught.value.__cause__ is not None)


def test_what_components_assert_of_shapes_is_said_in_a_line(untyped):
    """To the end: the sentence that explains it comes last."""

    def update(config, env, learner, batch, progress, key):
        one_too_many = jnp.zeros((len(batch.reward) + 1, config.actors))
        ending = (batch.terminated, batch.truncated)
        advantage = generalized_advantages(batch.reward, one_too_many, batch.reward, *ending, 0.99, 0.95)
        return learner, {"loss": jnp.mean(advantage)}

    sentence = r"rewards and values are time-major, .* whose value is next_value\[-1\]\]$"
    with pytest.raises(InputError, match=rf"^agent 'alone': update\(.* raised AssertionError: .*{sentence}"):
        purejaxrl.train(of_alone(update=update))


def test_make_train_takes_whole_numbers_written_as_floats(cartpole):
    train = purejaxrl.make_train(of_alone(), Alone(env_steps=2e1, actors=2.0), cartpole)
    _, log = jax.eval_shape(train, jax.random.key(0))
    # Iterations of 3 steps of 2 actors, rounded up.
    assert log.active.shape == (4,)


def test_make_train_checks_the_agent_too(cartpole):
    with pytest.raises(InputError, match="act returned None"):
        purejaxrl.make_train(of_alone(act=lambda *_: None), Alone(), cartpole)
    with pytest.raises(InputError, match=r"config: it is a Config of purejaxrl\.agents\.vpg, not one of dqn"):
        purejaxrl.make_train(dqn.agent, vpg.Config(), cartpole)


def test_a_learner_may_be_empty(tmp_path):
    """As of an agent that acts at random and learns nothing, against which others can be held."""
    functions = {
        "init": lambda config, env, key: Learner(()),
        "act": lambda *arguments: ActorOutput(jax.random.randint(arguments[-1], (2,), 0, 2)),
        "update": lambda config, env, learner, batch, progress, key: (learner, {}),
    }
    agent = of_alone(name="random", **functions)
    result = purejaxrl.train(agent, seeds=2, out=tmp_path / "run")
    assert result.summary_json["failed_runs"] == []
    assert len(purejaxrl.evaluate(tmp_path / "run", agent=agent, episodes=2)) == 4
    with pytest.raises(InputError, match="this learner has no parameters"):
        purejaxrl.export(tmp_path / "run", agent=agent)


def test_trees_of_the_same_arrays_may_be_of_another_kind():
    with pytest.raises(InputError, match=r"update returned the Learner as another kind of tree; it must stay as init"):
        check_same("update", "the Learner", (jnp.zeros(2),), [jnp.zeros(2)], "init")


@pytest.mark.parametrize("name", [3, "", "a,b", 'a"', "a\nb"])
def test_names_of_metrics_are_texts_that_a_csv_can_hold(name):
    with pytest.raises(InputError, match=r"a name must be a text without commas"):
        check_metrics("mine", {name: jnp.zeros(())})
