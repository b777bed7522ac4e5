"""The greedy policy of a run as a function, for gymnasium, numpy and JAX's transformations."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from purejaxrl.errors import InputError
from purejaxrl.training.devices import check_process
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.loop import initial_carry
from purejaxrl.types import ActorOutput, Agent, Continuous, Discrete, Env, PyTree


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Policy:
    """The greedy policy of one run: observation -> action, compiled when it is first called.

    Numpy arrays and lists give what gymnasium takes: an int for one observation where actions are discrete, else a
    numpy array. JAX arrays and tracers give JAX arrays, so that it can be used within `jit`, `vmap` and `scan`.
    A policy can be pickled, with its parameters and your own agent, network or environment.

    Attributes:
        agent: The agent.
        config: Its Config in this run.
        env: The environment that it was trained in.
        learner: The learner, without an axis of runs.
    """

    agent: Agent
    config: Any
    env: Env
    params: PyTree

    def __call__(self, observation: Any) -> Any:
        """Choose the greedy action.

        Args:
            observation: One observation, or a batch with any leading axes [..., *observation].

        Returns:
            The action, [...] or [..., *action]. Continuous ones are within the bounds of their space.

        Args:
            observation: One observation or a batch of them, [..., *observation].

        Returns:
            The action, [...] or [..., *action].

        Raises:
            InputError: If the observation is not an array of numbers of the shape that the policy was trained on, or
                the agent is recurrent; see `step`.
            UnsupportedError: In a process that was forked after JAX had started, where it would hang.
        """
        if jax.tree.leaves(self.agent.initial_carry(self.config, self.env)):
            raise InputError(
                f"policy: {self.agent.name} is recurrent; call carry = policy.initial_carry() where an episode begins, "
                "and action, carry = policy.step(observation, carry)"
            )
        return self.step(observation, ())[0]

    def initial_carry(self, lead: tuple[int, ...] = ()) -> PyTree:
        """The recurrent state where an episode begins; () of a feed-forward agent.

        Args:
            lead: The leading axes of the observations, () for a single one.

        Returns:
            The recurrent state, [*lead, ...].
        """
        return initial_carry(self.agent, self.env, self.config, lead)

    @standard_jax()
    def step(self, observation: Any, carry: PyTree) -> tuple[Any, PyTree]:
        """The greedy action, and the recurrent state after it.

        Args:
            observation: One observation or a batch of them, [..., *observation].
            carry: The recurrent state before it, with the same leading axes.

        Returns:
            The action, [...] or [..., *action], and the recurrent state for the next observation.

        Raises:
            InputError: If the observation is not an array of numbers of the shape that the policy was trained on.
            UnsupportedError: In a process that was forked after JAX had started, where it would hang.
        """
        check_process()
        is_from_jax = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(observation))
        action, _, carry = self._act(self._checked(observation, is_from_jax), carry)
        # Within a transformation the action is a tracer, even that of a constant.
        if is_from_jax or isinstance(action, jax.core.Tracer):
            return action, carry
        if isinstance(self.env.action_space, Discrete) and action.ndim == 0:
            return int(action), carry
        return np.array(action), carry

    def __repr__(self) -> str:
        return f"<Policy: {self.agent.name} on {self.env.name}>"

    def __getstate__(self) -> dict[str, Any]:
        # Without what has been compiled.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @functools.cached_property
    def _act(self) -> Any:
        return jax.jit(functools.partial(_act_greedily, self.agent, self.config, self.env, self.params))

    def _checked(self, observation: Any, is_from_jax: bool) -> Any:
        """The observation as an array; InputError where the policy cannot take it."""
        if isinstance(observation, tuple) and any(isinstance(part, dict) for part in observation):
            raise InputError(
                f"policy: it was given a tuple that holds a dict, as (observation, info) of gymnasium's reset; "
                f"{self._expected()}"
            )
        try:
            found = jnp.asarray(observation) if is_from_jax else np.asarray(observation)
        except (TypeError, ValueError, OverflowError):
            found = None
        numbers = (jnp.floating, jnp.integer, jnp.bool_)
        if found is None or not any(jnp.issubdtype(found.dtype, kind) for kind in numbers):
            raise InputError(f"policy: a {type(observation).__name__} is not an array of numbers; {self._expected()}")
        shape = self.env.observation_shape
        lead = found.ndim - len(shape)
        if lead < 0 or found.shape[lead:] != shape:
            raise InputError(f"policy: the observation has shape {list(found.shape)}; {self._expected()}")
        if 0 in found.shape[:lead]:
            raise InputError(f"policy: the batch is empty, of shape {list(found.shape)}; {self._expected()}")
        # Whatever a list of whole numbers, gymnasium or a session in float64 has, environments of a training observe
        # numbers of this type.
        return found.astype(jnp.result_type(float))

    def _expected(self) -> str:
        """What observations it takes, for error messages."""
        shape = list(self.env.observation_shape)
        batch = f"[{', '.join(['...', *map(str, shape)])}]"
        of = f"{self.env.name} takes one observation, {shape}, or a batch, {batch}"
        if self.env.image_format is None:
            return of
        return f"{of}: not images, but the numbers that images are rendered from, see purejaxrl.make(..., images=)"


def _act_greedily(
    agent: Agent, config: Any, env: Env, params: PyTree, observation: Num[Array, "..."], carry: PyTree
) -> ActorOutput:
    """The agent's greedy action; a continuous one within the bounds of its space, as environments clip it."""
    output, space = agent.policy(config, env, params, observation, carry), env.action_space
    action = output.action
    if isinstance(space, Continuous):
        low, high = (
            jnp.broadcast_to(jnp.asarray(bound, action.dtype), action.shape) for bound in (space.low, space.high)
        )
        action = jnp.clip(action, low, high)
    return output._replace(action=action)
