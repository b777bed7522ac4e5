"""The PyTorch scripts in benchmarks/torch against the package: same weights and batches, same losses and gradients."""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import PROGRESS

from purejaxrl.agents import a3c as jax_a3c
from purejaxrl.agents import dqn as jax_dqn
from purejaxrl.agents import vpg as jax_vpg
from purejaxrl.components.exploration import epsilon_schedule
from purejaxrl.components.hyperparameters import field_specs
from purejaxrl.components.returns import discounted_returns, generalized_advantages
from purejaxrl.envs import make
from purejaxrl.envs.cartpole.image import render_observation
from purejaxrl.types import Transition

torch = pytest.importorskip("torch", reason="PyTorch comes with the extra bench; make test-full installs it")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "torch"))
import a3c  # noqa: E402
import dqn  # noqa: E402
import images  # noqa: E402
import networks  # noqa: E402
import rollout  # noqa: E402
import vpg  # noqa: E402

sys.path.pop(0)

T, N = 50, 4
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def env():
    return make("CartPole-v0")


def random_batch(seed=0):
    """A batch for both: PyTorch's, and the same as a Transition; some steps terminate, some are truncated."""
    rng = np.random.default_rng(seed)
    batch = rollout.empty_batch(T, N)
    batch.observation[:] = rng.normal(size=batch.observation.shape)
    batch.action[:] = rng.integers(2, size=(T, N))
    batch.reward[:] = rng.normal(size=(T, N))
    batch.terminated[:], batch.truncated[:] = rng.random((2, T, N)) < 0.08
    ended = (batch.terminated | batch.truncated)[..., None]
    batch.next_observation[:] = np.where(ended, rng.normal(size=(T, N, 4)), batch.observation[1:])
    return batch, Transition(
        jnp.asarray(batch.observation[:-1]),
        jnp.asarray(batch.action, jnp.int32),
        jnp.asarray(batch.reward),
        jnp.asarray(batch.terminated),
        jnp.asarray(batch.truncated),
        jnp.asarray(batch.next_observation),
    )


def to_torch(params, inputs, outputs, activation):
    """A network with the weights of a Linen MLP."""
    network = networks.mlp(inputs, outputs, activation)
    with torch.no_grad():
        for i, layer in enumerate(network[::2]):
            layer.weight.copy_(torch.tensor(np.asarray(params[f"kernel_{i}"]).T))
            layer.bias.copy_(torch.tensor(np.asarray(params[f"bias_{i}"])))
    return network


def assert_same(params, arrays, rtol=1e-5, atol=1e-6):
    """Parameters (or gradients) of a Linen MLP against those of a network, in the order of network.parameters()."""
    expected = []
    for i in range(len(arrays) // 2):
        expected += [params[f"kernel_{i}"].T, params[f"bias_{i}"]]
    for mine, theirs in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=rtol, atol=atol)


def actor_critic(learner_pi, learner_v):
    return to_torch(learner_pi, 4, 2, torch.nn.Tanh), to_torch(learner_v, 4, 1, torch.nn.Tanh)


@pytest.mark.parametrize(("script", "agent"), [(vpg, jax_vpg), (dqn, jax_dqn), (a3c, jax_a3c)])
def test_hyperparameters_are_those_of_original(script, agent):
    config = agent.Config()
    values = {name: getattr(config, name) for name in field_specs(config)}
    if agent is jax_dqn:
        values |= dict(zip(("eps_start", "eps_end", "eps_rate"), config.eps_vals, strict=True))
    assert script.Settings()._asdict().items() <= values.items()
    assert values["hidden_sizes"] == networks.HIDDEN_SIZES
    assert (values.get("entropy_coef", 0.0), values.get("max_grad_norm"), values["lr_anneal"]) == (0.0, None, False)


def test_initial_weights_have_the_same_spread(env):
    params = jax_dqn.init(jax_dqn.Config(), env, jax.random.key(0)).params.q
    network = networks.mlp(4, 2, torch.nn.ReLU)
    for i, layer in enumerate(network[::2]):
        bound = layer.in_features**-0.5
        for mine, theirs in ((layer.weight, params[f"kernel_{i}"]), (layer.bias, params[f"bias_{i}"])):
            assert mine.abs().max() <= bound
            assert mine.numel() == theirs.size
            if theirs.size >= 32:
                assert float(jnp.abs(theirs).max()) == pytest.approx(bound, rel=0.2)
                assert mine.abs().max().item() == pytest.approx(bound, rel=0.2)


def test_advantages_and_returns():
    batch, transition = random_batch()
    value, next_value = batch.observation[:-1, :, 0], batch.next_observation[:, :, 0]
    ending = (batch.terminated, batch.truncated)
    expected = generalized_advantages(
        transition.reward, jnp.asarray(value), jnp.asarray(next_value), *map(jnp.asarray, ending), 0.99, 0.97
    )
    mine = rollout.advantages(batch.reward, value, next_value, *ending, 0.99, 0.97)
    np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)
    expected = discounted_returns(transition.reward, jnp.asarray(next_value), *map(jnp.asarray, ending), 0.99)
    mine = rollout.advantages(batch.reward, value, next_value, *ending, 0.99, 1.0) + value
    np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


def test_acting_layers_are_the_network(env):
    learner = jax_vpg.init(jax_vpg.Config(), env, jax.random.key(0))
    pi, _ = actor_critic(learner.params.pi, learner.params.v)
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    expected = jax_vpg.action_distribution(jax_vpg.Config(), env, learner.params.pi, jnp.asarray(x))
    x = torch.from_numpy(x)
    np.testing.assert_allclose(pi(x).detach().numpy(), expected, **CLOSE)
    np.testing.assert_allclose(networks.forward_tanh(networks.layers_of(pi, "cpu"), x).numpy(), expected, **CLOSE)
    q = networks.mlp(4, 2, torch.nn.ReLU)
    mine = networks.forward_relu(networks.layers_of(q, "cpu"), x)
    np.testing.assert_allclose(mine.numpy(), q(x).detach().numpy(), **CLOSE)


def test_vpg_losses_and_gradients(env):
    config = jax_vpg.Config()
    learner = jax_vpg.init(config, env, jax.random.key(0))
    pi, v = actor_critic(learner.params.pi, learner.params.v)
    batch, transition = random_batch()
    target = np.random.default_rng(1).normal(size=(T, N)).astype(np.float32)
    observation, action = torch.from_numpy(batch.observation[:-1]), torch.from_numpy(batch.action)

    standardized = vpg.standardize(torch.from_numpy(target))
    np.testing.assert_allclose(standardized.numpy(), jax_vpg.standardize(jnp.asarray(target)), **CLOSE)
    (expected, _), gradient = jax.value_and_grad(jax_vpg.policy_loss, argnums=2, has_aux=True)(
        config, env, learner.params.pi, transition, jnp.asarray(target)
    )
    loss = vpg.policy_loss(pi, observation, action, torch.from_numpy(target))
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    assert_same(gradient, torch.autograd.grad(loss, list(pi.parameters())))

    expected, gradient = jax.value_and_grad(jax_vpg.value_loss, argnums=2)(
        config, env, learner.params.v, transition, jnp.asarray(target)
    )
    loss = vpg.value_loss(v, observation, torch.from_numpy(target))
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    assert_same(gradient, torch.autograd.grad(loss, list(v.parameters())))


def test_vpg_epoch(env):
    """A whole update: bootstrapping, advantages, Adam."""
    config = jax_vpg.Config()
    learner = jax_vpg.init(config, env, jax.random.key(0))
    pi, v = actor_critic(learner.params.pi, learner.params.v)
    batch, transition = random_batch()
    updated, _ = jax.jit(partial(jax_vpg.update, config, env))(learner, transition, PROGRESS, jax.random.key(1))
    optimizers = [
        torch.optim.Adam(each.parameters(), lr=lr, fused=True) for each, lr in ((pi, config.pi_lr), (v, config.v_lr))
    ]
    vpg.learn(vpg.Settings(), pi, v, *optimizers, batch, "cpu")
    assert_same(updated.params.pi, list(pi.parameters()))
    assert_same(updated.params.v, list(v.parameters()), atol=1e-5)


def transitions(seed=0):
    rng = np.random.default_rng(seed)
    observation, next_observation = rng.normal(size=(2, 64, 4)).astype(np.float32)
    discount = np.where(rng.random(64) < 0.2, 0, 0.99).astype(np.float32)
    arrays = (observation, rng.integers(2, size=64), rng.normal(size=64).astype(np.float32), discount, next_observation)
    experience = jax_dqn.Experience(*map(jnp.asarray, arrays))
    return dqn.Transitions(*map(torch.from_numpy, arrays)), experience._replace(action=experience.action.astype(int))


def test_dqn_targets_losses_and_gradients(env):
    config = jax_dqn.Config()
    params, target_params = (jax_dqn.init(config, env, jax.random.key(seed)).params.q for seed in (0, 1))
    q, target = (to_torch(each, 4, 2, torch.nn.ReLU) for each in (params, target_params))
    batch, experience = transitions()
    expected = jax_dqn.q_target(config, env, params, target_params, experience)
    y = dqn.q_targets(
        batch.reward,
        batch.discount,
        networks.forward_relu(networks.layers_of(target, "cpu"), batch.next_observation),
    )
    np.testing.assert_allclose(y.numpy(), expected, **CLOSE)
    (expected, _), gradient = jax.value_and_grad(jax_dqn.td_loss, argnums=2, has_aux=True)(
        config, env, params, experience, expected
    )
    loss = dqn.td_loss(q, batch.observation, batch.action, y)
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    assert_same(gradient, torch.autograd.grad(loss, list(q.parameters())))


def test_dqn_gradient_steps(env):
    """Several steps of Adam, on a batch each."""
    config = jax_dqn.Config()
    params, target_params = (jax_dqn.init(config, env, jax.random.key(seed)).params.q for seed in (0, 1))
    q, target = (to_torch(each, 4, 2, torch.nn.ReLU) for each in (params, target_params))
    mine = torch.optim.Adam(q.parameters(), lr=config.lr, fused=True)
    theirs = optax.adam(config.lr)
    state = theirs.init(params)
    for seed in range(5):
        batch, experience = transitions(seed)
        dqn.learn(q, networks.layers_of(target, "cpu"), mine, batch)
        y = jax_dqn.q_target(config, env, params, target_params, experience)
        gradient, _ = jax.grad(jax_dqn.td_loss, argnums=2, has_aux=True)(config, env, params, experience, y)
        step, state = theirs.update(gradient, state)
        params = optax.apply_updates(params, step)
    assert_same(params, list(q.parameters()))


def test_epsilon():
    for env_steps in (0, 1, 1000, 20_000):
        expected = float(epsilon_schedule(jnp.float32(env_steps), 1.0, 0.01, 0.001))
        assert dqn.epsilon_at(dqn.Settings(), env_steps) == pytest.approx(expected, rel=1e-5)


def test_a3c_loss_and_gradient(env):
    config = jax_a3c.Config()
    theta = jax_a3c.init(config, env, jax.random.key(0)).params
    pi, v = actor_critic(theta.pi, theta.v)
    batch, transition = random_batch()
    (expected, _), gradient = jax.value_and_grad(jax_a3c.loss, argnums=2, has_aux=True)(config, env, theta, transition)
    loss = a3c.loss_of(pi, v, batch, a3c.Settings(), "cpu")
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    mine = torch.autograd.grad(loss, [*pi.parameters(), *v.parameters()])
    assert_same(gradient.pi, mine[:6])
    assert_same(gradient.v, mine[6:])


def test_a3c_shared_adam():
    """Turns of an optimizer over one shared vector, its statistics given from outside, are optax's."""
    theta, *gradients = np.random.default_rng(0).normal(size=(11, 40)).astype(np.float32)
    optimizer = jax_a3c.make_optimizer(jax_a3c.Config())
    start = jnp.asarray(theta)
    _, expected = jax_a3c.take_turns(optimizer, start, optimizer.init(start), jnp.stack(gradients))
    shared = torch.from_numpy(theta.copy()).share_memory_()
    state = [torch.zeros(()), torch.zeros(40), torch.zeros(40)]
    shared_state = a3c.Shared(shared, *(each.share_memory_() for each in state), torch.zeros(3))
    workers = [a3c.shared_adam(shared_state, a3c.Settings()) for _ in range(2)]
    for turn, gradient in enumerate(gradients):
        shared.grad = torch.from_numpy(gradient)
        workers[turn % 2].step()
        np.testing.assert_allclose(shared.numpy(), expected[turn], **CLOSE)


@pytest.mark.parametrize("start", [rollout.start_plain, rollout.start_vector])
def test_every_row_is_an_env_step(env, start):
    """Each row is what CartPole does; after an end the next row begins an episode; none lasts beyond 200 steps."""
    steps, actors = 450, 3
    batch = rollout.empty_batch(steps, actors)
    step = start(actors, 0, batch.observation[0])

    def balance(t):
        observation = batch.observation[t]
        noise = 0.3 if t % 2 else 0.0  # some episodes fall
        lean = observation[:, 2] + 0.5 * observation[:, 3] + noise * np.array([0.0, 0.0, 1.0])
        return torch.from_numpy((lean > 0).astype(np.int64))

    for t in range(steps):
        batch.action[t] = balance(t)
        step(batch, t, torch.from_numpy(batch.action[t]))
    ended = batch.terminated | batch.truncated
    assert batch.truncated.any()
    assert batch.terminated.any()

    now, then = batch.observation[:-1].reshape(-1, 4), batch.next_observation.reshape(-1, 4)
    _, state = env.reset(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), len(now))

    def physics(key, x, action):
        inner = state.replace(x=x[0], x_dot=x[1], theta=x[2], theta_dot=x[3], time=0)
        return env.step(key, inner, action)

    timestep = jax.jit(jax.vmap(physics))(keys, jnp.asarray(now), jnp.asarray(batch.action.ravel(), jnp.int32))
    np.testing.assert_allclose(then, timestep.next_observation, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(batch.terminated.ravel(), timestep.terminated)
    np.testing.assert_array_equal(batch.reward, 1.0)

    np.testing.assert_array_equal(batch.observation[1:][~ended], batch.next_observation[~ended])
    assert (np.abs(batch.observation[1:][ended]) <= rollout.START).all()
    episodes = rollout.no_episodes(actors)
    rollout.log_episodes(episodes, batch, 1000)
    lengths = [np.diff(np.flatnonzero(ended[:, n]), prepend=-1).tolist() for n in range(actors)]
    assert sorted(episodes.returns) == sorted(np.concatenate(lengths))
    assert max(episodes.returns) == 200
    ends = {(1000 + t * actors + n + 1): (t, n) for t, n in np.argwhere(ended).tolist()}
    assert episodes.env_steps == sorted(ends)
    for n in range(actors):
        where = np.flatnonzero(ended[:, n])
        for length, t in zip(lengths[n], where, strict=True):
            assert batch.truncated[t, n] == (length == 200)


def test_batches_are_resumed_where_they_ended():
    batch = rollout.empty_batch(5, 2)
    step = rollout.start_vector(2, 0, batch.observation[0])
    layers = networks.layers_of(networks.mlp(4, 2, torch.nn.Tanh), "cpu")
    rollout.collect(step, layers, batch)
    last = batch.next_observation[-1].copy()
    rollout.go_on(batch)
    np.testing.assert_array_equal(batch.observation[0], last)
    rollout.collect(step, layers, batch)
    assert np.abs(batch.next_observation[0] - last).max() < 0.6


def test_actions_follow_the_policy():
    """Gumbel noise: frequencies are those of softmax."""
    torch.manual_seed(0)
    network = networks.mlp(4, 2, torch.nn.Tanh)
    batch = rollout.empty_batch(20_000, 1)

    def stay(batch, t, actions):
        pass

    rollout.collect(stay, networks.layers_of(network, "cpu"), batch)
    expected = network(torch.zeros(1, 4)).softmax(-1)[0, 1].item()
    assert batch.action.mean() == pytest.approx(expected, abs=0.015)


def test_images(render_by_gymnasium):
    """The exact average of gymnasium's frame, and the package's image within what it promises, and rounding."""
    for x, theta in ((0.013, 0.02), (1.317, 0.153), (-2.217, -0.21)):
        frame = render_by_gymnasium(x, theta)
        small = images.shrink(frame).view(40, 90, 3).numpy().astype(np.float64)
        fine = np.repeat(frame[160:320].astype(np.float64), 3, axis=1)  # 1800 columns: 20 to a column of 90
        exact = fine.reshape(40, 4, 90, 20, 3).mean(axis=(1, 3))
        assert np.abs(small - exact).max() <= 0.51
        rendered = 255 * np.asarray(render_observation(jnp.float32(x), jnp.float32(theta), 40, 90, 3))
        assert np.abs(small - rendered).max() <= 13.6


def test_replay_of_images():
    """Differences of consecutive frames, 0 at an episode's first; slots are written over without losing any."""
    settings = dqn.Settings(batch_size=256, memory_size=32)
    memory = dqn.Images(settings, "cpu")
    rng = np.random.default_rng(0)
    expected = []
    for episode in range(12):
        frames = [torch.from_numpy(rng.integers(0, 256, memory.size).astype(np.uint8)) for _ in range(9 + episode % 3)]
        memory.start(frames[0])
        for t in range(len(frames) - 1):
            now = (frames[t].float() - frames[max(t - 1, 0)].float()) / 255
            np.testing.assert_allclose(memory.newest()[0], now, atol=1e-6)
            memory.add(t % 2, float(len(expected)), 0.5, frames[t + 1])
            expected.append((now, (frames[t + 1].float() - frames[t].float()) / 255, t % 2))
    batch = memory.sample(256)
    sampled = batch.reward.int().tolist()
    assert set(sampled) == set(range(len(expected) - 32, len(expected)))
    for row, number in enumerate(sampled[:64]):
        now, then, action = expected[number]
        np.testing.assert_allclose(batch.observation[row], now, atol=1e-6)
        np.testing.assert_allclose(batch.next_observation[row], then, atol=1e-6)
        assert batch.action[row] == action


def test_replay_of_states():
    memory = dqn.States(dqn.Settings(memory_size=32), "cpu")
    memory.start(np.zeros(4, np.float32))
    for number in range(1, 51):
        memory.add(number % 2, float(number), 0.99, np.full(4, number, np.float32))
    batch = memory.sample(512)
    assert set(batch.reward.int().tolist()) == set(range(19, 51))
    np.testing.assert_array_equal(batch.next_observation[:, 0], batch.reward)
    np.testing.assert_array_equal(batch.observation[:, 3], batch.reward - 1)
    np.testing.assert_array_equal(batch.action, batch.reward.int() % 2)
