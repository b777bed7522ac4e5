"""Plant faults one at a time and see the suite go red: `python tests/mutations.py [WORD ...]`, part of `make test-full`.

Each fault is a text of the package and what takes its place, with the tests that must notice. The package is copied to a
temporary folder; the working tree stays as it is. With words, only faults whose name holds them all are planted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import quickly

ROOT = Path(__file__).parent.parent


class Fault(NamedTuple):
    """What is planted: `old` becomes `new` in `file`; `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


FAULTS = [
    Fault("advantage leaks over episodes", "components/returns.py", "lam * (1.0 - (terminated | truncated))", "lam * (1.0 - terminated)", "test_returns.py"),
    Fault("truncation taken for termination in the advantage", "components/returns.py", "delta = reward + gamma * jnp.where(terminated,", "delta = reward + gamma * jnp.where(terminated | truncated,", "test_returns.py"),
    Fault("truncation taken for termination in the returns", "components/returns.py", "bootstrap = reward + gamma * jnp.where(terminated,", "bootstrap = reward + gamma * jnp.where(terminated | truncated,", "test_returns.py test_vpg.py"),
    Fault("returns not bootstrapped at the cut", "components/returns.py", "backward, next_value[-1],", "backward, jnp.zeros_like(next_value[-1]),", "test_returns.py test_vpg.py"),
    Fault("replay one row short", "components/replay.py", "(iteration + 1, blocks)", "(iteration, blocks)", "test_replay.py"),
    Fault("replay reads the oldest row after the wrap", "components/replay.py", "newest = iteration % blocks * block + block - 1", "newest = iteration % blocks * block + block", "test_replay.py"),
    Fault("replay keeps more than its capacity", "components/replay.py", "* block, capacity)", "* block, replay.rows.shape[0])", "test_replay.py"),
    Fault("epsilon counts without the rate", "components/exploration.py", "jnp.exp(-rate * env_steps)", "jnp.exp(-env_steps * 0.002)", "test_policies.py"),
    Fault("random action excludes the last", "components/exploration.py", "uniform / epsilon * num_actions)", "uniform / epsilon * (num_actions - 1))", "test_policies.py"),
    Fault("bias not initialized like the weights", "components/networks.py", 'self.param(f"bias_{index}", start,', 'self.param(f"bias_{index}", nn.initializers.zeros,', "test_networks.py"),
    Fault("networks may mix rows", "components/networks.py", "if not is_close(kept, features, 1e-5).all():", "if False:", "test_own_networks.py"),
    Fault("rows are compared with the network's own zeros", "components/networks.py", "lambda leaf: (draw(leaf.shape) /", "lambda leaf: (0.0 * draw(leaf.shape) /", "test_own_networks.py"),
    Fault("JAX's precision reaches trainings", "training/jax_settings.py", "settings.enter_context(jax.enable_x64(False))", "pass", "test_jax_settings.py"),
    Fault("the compiler's thread has JAX's settings of the process", "training/compilation.py", "@standard_jax()\ndef _compile", "def _compile", "test_jax_settings.py"),
    Fault("a wrong gradient of a long batch's inputs", "kernels/narrow_mlp.py", 'contract("io,ob->ib", kernel, cotangent)', 'contract("io,ob->ib", jnp.abs(kernel), cotangent)', "test_kernels.py"),
    Fault("advantage not normalized", "agents/vpg.py", "return standardize(generalized_advantages(", "return (generalized_advantages(", "test_vpg.py"),
    Fault("policy gradient uphill", "components/actor_critic.py", "return -score - ", "return score - ", "test_vpg.py"),
    Fault("value of the reset observation", "training/rollout.py", "            timestep.next_observation,", "            timestep.observation,", "test_dqn.py test_vpg.py"),
    Fault("target copied one episode late", "agents/dqn.py", "progress.episodes, progress.episodes + ended", "progress.episodes - 1, progress.episodes - 1 + ended", "test_dqn.py"),
    Fault("target network not used", "agents/dqn.py", "next_q = q_values(config, env, target_params,", "next_q = q_values(config, env, params,", "test_dqn.py"),
    Fault("truncated rows stored as terminal", "agents/dqn.py", "now.reward, now.terminated, now.trunc", "now.reward, now.terminated | now.truncated, now.trunc", "test_dqn.py"),
    Fault("only one step sampled", "agents/dqn.py", "progress.iteration, config.n_steps\n", "progress.iteration\n", "test_dqn.py"),
    Fault("rewards of the next episode summed too", "agents/dqn.py", "goes_on &= ~(step.terminated | step.truncated)", "pass", "test_dqn.py"),
    Fault("steps not yet stored summed too", "agents/dqn.py", "goes_on &= is_stored[:, k]", "pass", "test_dqn.py"),
    Fault("steps of another actor follow", "components/replay.py", "- block * jnp.arange(length)", "- jnp.arange(length)", "test_replay.py"),
    Fault("learning begins a row early", "agents/dqn.py", "config.actors) - 1\n", "config.actors) - 2\n", "test_dqn.py"),
    Fault("all actors share the first one's epsilon", "agents/dqn.py", "progress.env_steps + jnp.arange(observation.shape[0])", "progress.env_steps + 0 * jnp.arange(observation.shape[0])", "test_dqn.py"),
    Fault("rollout and update share a key", "training/loop.py", "rollout_key, update_key, _ = iteration_keys(state.key, iteration)", "rollout_key, _, _ = iteration_keys(state.key, iteration); update_key = rollout_key", "test_dqn.py"),
    Fault("all seeds start alike", "training/compilation.py", "config, jax.random.key(seed), budget", "config, jax.random.key(seed * 0), budget", "test_training.py test_cli.py"),
    Fault("frozen runs go on", "training/loop.py", 'partial(jnp.where, active), selectable(advanced)', 'lambda new, old: new, selectable(advanced)', "test_training.py"),
    Fault("runs end one episode late", "training/loop.py", "moved.episode.finished < budget.amount", "moved.episode.finished <= budget.amount", "test_training.py"),
    Fault("the length of an episode is not reset", "training/rollout.py", "jnp.where(done, 0, length),", "length,", "test_training.py"),
    Fault("time limit one step late", "envs/registry.py", "is_over = steps >= max_ep_len", "is_over = steps > max_ep_len", "test_envs.py"),
    Fault("time limit not reset with the episode", "envs/registry.py", "steps = jnp.where(timestep.terminated | truncated, 0, steps)", "steps = jnp.where(truncated, 0, steps)", "test_envs.py"),
    Fault("CartPole-v0 with 500 steps", "envs/registry.py", "make_cartpole, 200", "make_cartpole, 500", "test_envs.py"),
    Fault("solved by a partial window", "training/metrics.py", '(events.number >= WINDOW) & (state.solved', '(events.number >= 1) & (state.solved', "test_metrics.py"),
    Fault("rows beyond the budget kept", "training/metrics.py", 'kept = number <= spec.max_episodes', 'kept = number <= spec.max_episodes + 1', "test_metrics.py"),
    Fault("a worse learner replaces the best", "training/evaluation.py", "eval_return > best.eval_return", "eval_return < best.eval_return", "test_training.py"),
    Fault("workers take theta a turn early", "agents/a3c.py", "jax.vmap(as_theta)(after_turn[turn_of])", "jax.vmap(as_theta)(jnp.roll(after_turn, 1, axis=0)[turn_of])", "test_a3c.py"),
    Fault("gradients at theta instead of the worker's copy", "agents/a3c.py", '(copies.theta, shares)', '(jax.tree.map(lambda g: jnp.broadcast_to(g[None], (count, *g.shape)), Theta(learner.params.pi, learner.params.v)), shares)', "test_a3c.py"),
    Fault("acting with theta instead of the worker's copy", "agents/a3c.py", '(learner.extra.theta.pi, per_worker)', '(jax.tree.map(lambda g: jnp.broadcast_to(g[None], (workers(config), *g.shape)), learner.params.pi), per_worker)', "test_a3c.py"),
    Fault("fresh parameters a round early", "agents/a3c.py", "(progress.iteration + 1) % config.sync_every", "progress.iteration % config.sync_every", "test_a3c.py"),
    Fault("a gradient's own update counts as delay", "agents/a3c.py", 'updates - copies.taken_at', 'updates + 1 - copies.taken_at', "test_a3c.py test_api.py"),
    Fault("random order not applied", "agents/a3c.py", 'learner.optimizer, gradient[order])', 'learner.optimizer, gradient)', "test_a3c.py"),
    Fault("gradient flows into the value target", "agents/a3c.py", "baseline = jax.lax.stop_gradient(value)", "baseline = value", "test_a3c.py"),
    Fault("RMSProp's epsilon outside the root", "agents/a3c.py", "eps_in_sqrt=True", "eps_in_sqrt=False", "test_a3c.py"),
    Fault("A3C's lambda ignored", "agents/a3c.py", "config.gamma, config.lam)", "config.gamma, 1.0)", "test_a3c.py"),
    Fault("A3C's policy does not normalize", "agents/a3c.py", "    inputs = network_input(config, env, params.statistics, observation)", "    inputs = network_input(config, env, None, observation)", "test_inputs.py"),
    Fault("VPG's gradient sees newer statistics than its actions did", "agents/vpg.py", "normalize_batch(params.statistics, inputs)", "normalize_batch(statistics, inputs)", "test_inputs.py"),
    Fault("A3C learns from raw observations", "agents/a3c.py", "normalize_batch(statistics, inputs)", "normalize_batch(None, inputs)", "test_inputs.py"),
    Fault("DQN learns from raw observations", "agents/dqn.py", "normalize_batch(statistics, experience)", "normalize_batch(None, experience)", "test_inputs.py"),
    Fault("rewards not scaled", "components/preprocessing.py", "config.reward_scale * batch.reward", "batch.reward", "test_inputs.py"),
    Fault("variance between batches lost", "components/preprocessing.py", "weight * (1 - weight) * jnp.square(delta)", "0.0 * jnp.square(delta)", "test_inputs.py"),
    Fault("Gaussian density not normalized", "components/distributions.py", "+ log_std + 0.5 * LOG_2_PI, axis=-1)", "+ 0.5 * LOG_2_PI, axis=-1)", "test_policies.py test_actor_critic.py"),
    Fault("actions reach the environment unclipped", "envs/registry.py", "action = jnp.clip(action, space.low, space.high)", "action = action * 1.0", "test_envs.py"),
    Fault("entropy bonus with the wrong sign", "components/actor_critic.py", "return -score - entropy_coef * entropy", "return -score + entropy_coef * entropy", "test_actor_critic.py"),
    Fault("the sum of an interval starts anew with every chunk", "training/metrics.py", 'table[0] = state.interval[name]', 'pass', "test_metrics.py"),
    Fault("an empty interval counts as zero in the area", "training/metrics.py", 'value = np.where(is_first & is_empty, state.last_mean[run], return_mean)', 'value = np.nan_to_num(return_mean); is_empty[:] = False', "test_metrics.py"),
    Fault("the window slides past the newest episode", "training/loop.py", "dynamic_slice_in_dim(history, count[-1], window)", "dynamic_slice_in_dim(history, count[-1] - 1, window)", "test_sweep.py"),
    Fault("solved by a partial window inside the program", "training/loop.py", "is_full = (number <= count[-1]) & (finished + number >= window)", "is_full = number <= count[-1]", "test_sweep.py"),
    Fault("runs stop above the threshold only", "training/loop.py", "(best_mean >= budget.stop_at)", "(best_mean > budget.stop_at)", "test_sweep.py"),
    Fault("settings get one another's values", "training/batches.py", "np.repeat(np.asarray(leaves, np.float32), repeats)", "np.tile(np.asarray(leaves, np.float32), repeats)", "test_sweep.py"),
    Fault("settings do not share their seeds", "training/batches.py", "(seed + runs % seeds)", "(seed + runs)", "test_sweep.py"),
    Fault("a program's own memory left out", "training/compilation.py", "bytes_of((configs, state, best)) // mesh.size", "0", "test_sweep.py"),
    Fault("diverged runs named by their place in the batch", "experiment/tracker.py", "return stage.batch.runs[find_diverged(", "return np.arange(len(stage.batch.runs))[find_diverged(", "test_sweep.py"),
    Fault("padding shows", "training/runner.py", "log = trim(log, length, runs)", "log = trim(log, length, program.width)", "test_sweep.py"),
    Fault("stopping early is a loss", "experiment/tracker.py", "later * left) /", "0 * left) /", "test_sweep.py"),
    Fault("ties count as wins", "analysis/statistics.py", "- y_counts / 2", "- y_counts * 0", "test_statistics.py"),
    Fault("diverged runs dropped", "analysis/summary.py", "is_ok = ~np.isin(np.arange(runs), failed) & has_begun", "is_ok = has_begun", "test_sweep.py test_compare.py"),
    Fault("the best is the worst", "analysis/statistics.py", "is_ascending = [False, False,", "is_ascending = [False, True,", "test_statistics.py"),
    Fault("terminal difference not zeroed", "envs/images.py", "is_still = terminated & (images.image == \"difference\")", "is_still = terminated & False", "test_pixels.py"),
    Fault("truncated difference zeroed", "envs/images.py", "is_still = terminated &", "is_still = (terminated | truncated) &", "test_pixels.py"),
    Fault("newest frame first", "kernels/sparse_images.py", "jnp.concatenate(frames, axis=-1)", "jnp.concatenate(frames[::-1], axis=-1)", "test_pixels.py"),
    Fault("terminal difference not zeroed where a step is rendered at once", "kernels/sparse_images.py", "jnp.where(image.is_blank[..., None, None, None], 0.0, difference)", "difference", "test_pixels.py"),
    Fault("frames shared where none are", "envs/images.py", "images.offsets.step == 1,", "True,", "test_pixels.py"),
    Fault("frames shared by observations several steps apart", "agents/dqn.py", "is_step=config.n_steps == 1", "is_step=True", "test_dqn.py"),
    Fault("frames of the episode before stay", "envs/images.py", "jnp.where(terminated | truncated, initial_history(images, fresh), history)", "jnp.where(terminated, initial_history(images, fresh), history)", "test_pixels.py"),
    Fault("the wrapper fills the next episode with the last frame of this one", "envs/pixel_observation.py", "final, fresh, terminated, truncated)", "final, final, terminated, truncated)", "test_pixels.py"),
    Fault("the last frame is the next episode's first", "envs/images.py", "renderer.select(timestep.next_observation)", "renderer.select(timestep.observation)", "test_pixels.py"),
    Fault("frame spacing ignored", "envs/images.py", "range(0, spacing * (frames - 1) + 1, spacing)", "range(0, frames)", "test_pixels.py"),
    Fault("the wrapper's final image is that of the reset", "envs/pixel_observation.py", '"final_observation": self._render(observed)}', '"final_observation": self._render(select_frames(self.images, history))}', "test_pixels.py"),
    Fault("motion with the wrong sign", "components/preprocessing.py", "change = older - jnp.tile(newest, config.frames - 1)", "change = jnp.tile(newest, config.frames - 1) - older", "test_inputs.py"),
    Fault("a stack's white is 1", "components/preprocessing.py", "return 1.0 - image", "return image", "test_inputs.py"),
    Fault("stride of a convolution ignored", "components/networks.py", "image[:, i : i + stride * (rows - 1) + 1 : stride]", "image[:, i : i + rows]", "test_networks.py"),
    Fault("last tile not rendered", "kernels/sparse_images.py", "tiles.last // COLUMNS + 1, 0", "tiles.last // COLUMNS, 0", "test_sparse_images.py"),
    Fault("rows that fill up a block have a gradient", "kernels/sparse_images.py", "return jnp.where(is_row, blocks, 0.0)", "return blocks", "test_sparse_images.py"),
    Fault("tiles of terminal steps show motion", "kernels/sparse_images.py", "jnp.where(next_image.is_blank[:, None], numbers[:, 1], numbers[:, 2])", "numbers[:, 2]", "test_sparse_images.py"),
    Fault("a tile's rows stay sorted", "kernels/sparse_images.py", "return rows[jnp.argsort(order)]", "return rows[: len(order)]", "test_sparse_images.py"),
    Fault("kernels may be larger than the image", "components/networks.py", "if kernel > side:", "if kernel > side + 1:", "test_networks.py test_cli.py"),
    Fault("wide layers transposed and not transposed back", "kernels/narrow_mlp.py", "return x.T if is_feature_major else x", "return x.T if rows >= LONG_BATCH and inputs.ndim == 2 else x", "test_networks.py"),
    Fault("image settings of vectors go unseen", "experiment/presets.py", 'refuse(("image", "image_size", "channels", *OF_STACKS)', 'refuse(("image", "image_size", "channels")', "test_cli.py"),
    Fault("remainders a subtraction short", "kernels/threefry.py", "for _ in range(4):", "for _ in range(1):", "test_keys.py"),
    Fault("V of the next episode's start where one is truncated", "components/actor_critic.py", "truncated.at[-1].set(True)", "jnp.zeros_like(truncated).at[-1].set(True)", "test_actor_critic.py test_a3c.py"),
    Fault("V of the first observation behind the cut", "components/actor_critic.py", "truncated.at[-1].set(True)", "truncated", "test_actor_critic.py test_a3c.py"),
    Fault("a rotation of threefry is wrong", "kernels/threefry.py", "(17, 29, 16, 24)", "(17, 29, 16, 25)", "test_keys.py"),
    Fault("a program on disk of another source", "training/executables.py", '"source": hash_of_source(),', '"source": "",', "test_executables.py"),
    Fault("a program on disk of other settings of JAX", "training/executables.py", '"settings": {name: repr(value)', '"settings": {name: "same"', "test_executables.py"),
    Fault("a program on disk for what somebody has replaced", "training/executables.py", 'or not are_alike(header["modules"], file.modules)', "or False", "test_executables.py"),
    Fault("a program on disk with a user's function in it", "training/executables.py", "    if not is_installed_alone(modules):\n        return None", "    if False:\n        return None", "test_executables.py"),
    Fault("what JAX has read is serialized again", "training/compilation.py", "    if not read:", "    if True:", "test_executables.py"),
    Fault("a program in memory for what somebody has replaced", "training/programs.py", "memory_limit or not is_unchanged(modules)", "memory_limit", "test_programs.py"),
    Fault("a wrapper taken for what it wraps", "training/identity.py", 'if _is_installed(str(value.__globals__.get("__name__"))):', "if _is_installed(value.__module__):", "test_executables.py"),
    Fault("JAX's threefry kept", "training/loop.py", "jax.random.split(unrolled(key), 3)", "jax.random.split(key, 3)", "test_compiled_programs.py"),
    Fault("replays selected, thus copied", "training/loop.py", '_replace(memory=advanced.learner.memory))', '_replace(memory=jax.tree.map(partial(jnp.where, active), advanced.learner.memory, state.learner.memory)))', "test_compiled_programs.py test_contract.py"),
    Fault("the value function trained twice as long", "agents/vpg.py", "length=config.train_v_iters", "length=2 * config.train_v_iters", "test_compiled_programs.py"),
    Fault("gradients computed twice", "agents/a3c.py", "gradient = jax.vmap(as_vector)(gradient)", "again = jax.vmap(jax.grad(partial(loss, config, env), has_aux=True))(jax.tree.map(jnp.negative, learner.worker_theta), shares)[0]; gradient = jax.vmap(as_vector)(gradient) + 0.0 * jax.vmap(as_vector)(again)", "test_compiled_programs.py"),
    Fault("a checkpoint's metadata are not verified", "storage/checkpoint.py", "if (path / SUMS).read_bytes() != _sums_text(found).encode():", "if not (path / SUMS).read_bytes().startswith(_sums_text(found[:1]).encode()):", "test_checkpoint.py"),
    Fault("types of a checkpoint are not compared", "storage/checkpoint.py", "if expected.get(name) != found.get(name):", "if (name in expected) != (name in found):", "test_checkpoint.py"),
    Fault("a checkpoint is written in its place", "storage/checkpoint.py", "partial = target.with_name(target.name + PARTIAL)", "partial = parent / f'{number - 1:06d}{PARTIAL}'; target = parent / f'{max(number - 1, 1):06d}'", "test_checkpoint.py"),
    Fault("leftovers stay", "storage/checkpoint.py", 'for entry in parent.glob("*" + PARTIAL):', "for entry in []:", "test_checkpoint.py"),
    Fault("resuming an iteration late", "experiment/states.py", 'return ResumePoint(trees[0], trees[1], iteration)', 'return ResumePoint(trees[0], trees[1], iteration + 1)', "test_resume.py"),
    Fault("batches that have ended are kept in memory", "experiment/checkpointing.py", "self.write(between)", "self.pending = between", "test_resume.py"),
    Fault("a second signal cuts a checkpoint", "experiment/checkpointing.py", "        with self.deferring():\n", "        if True:\n", "test_resume.py"),
    Fault("rows of the last chunk forgotten", "training/metrics.py", 'is_open=is_active[-1],', 'is_open=np.zeros_like(is_active[-1]),', "test_metrics.py test_resume.py"),
    Fault("rows after the checkpoint kept", "storage/csv_files.py", "os.truncate(path, self.begun[name].size)", "self.begun[name].size", "test_resume.py"),
    Fault("a recurrent state outlives its episode", "training/rollout.py", "return jnp.where(mask, jnp.broadcast_to(initial, current.shape), current)", "return current", "test_contract.py"),
    Fault("extras of another step", "training/rollout.py", "            extras,\n", "            jax.tree.map(jnp.zeros_like, extras),\n", "test_contract.py"),
    Fault("schedules over the budget are extended", "experiment/validation.py", "        if is_used(program, program.invars[0]):", "        if False:", "test_contract.py"),
    Fault("open intervals forgotten", "experiment/states.py", 'interval = with_prefix(kept, OPEN)', 'interval = {}', "test_resume.py"),
    Fault("an extension keeps the old end's evaluation", "training/runner.py", '                best = earlier\n', '                best = final.best\n', "test_resume.py"),
    Fault("more episodes do not wake a run", "experiment/checkpointing.py", 'np.asarray(point.state.active) | goes_on', 'np.asarray(point.state.active)', "test_resume.py"),
    Fault("run folders are not locked", "storage/locking.py", "fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)", "number", "test_resume.py"),
    Fault("changes of the configuration go unseen", "experiment/plan_from_config.py", "if wrong:", "if False:", "test_resume.py"),
    Fault("earlier run folders are not migrated", "experiment/schema.py", "for step in MIGRATIONS[version:]:", "for step in ():", "test_schema.py"),
    Fault("checkpoints of later versions are resumed", "experiment/schema.py", "if version > SCHEMA_VERSION:", "if False:", "test_schema.py"),
    Fault("swept hyperparameters are filled in", "experiment/schema.py", "if name not in known}", "}", "test_schema.py"),
    Fault("divergence stops nothing", "experiment/run.py", "plan.options.fail_on_nan and len(diverged_runs(stage)) > 0", "False", "test_resume.py"),
    Fault("shards are compiled for one device", "experiment/cluster.py", "min(layout.devices, 2)", "1", "test_clusters.py"),
    Fault("rows of shards stay as they came", "experiment/shards.py", "np.lexsort([table[key] for key in keys])", "np.arange(len(table[keys[0]]))", "test_clusters.py"),
    Fault("a shard is tried once", "experiment/cluster.py", "ATTEMPTS = 3", "ATTEMPTS = 1", "test_clusters.py"),
    Fault("batches of shards are put together before they are whole", "experiment/run.py", "not missing(works[0], present[works[0]])", "present[works[0]]", "test_clusters.py"),
    Fault("shards that wait are trained again", "experiment/run.py", "        present[work].append(shard)\n        tracker.add_shard(found", "        tracker.add_shard(found", "test_clusters.py"),
    Fault("workers of any version", "experiment/shards.py", "        if one != other:", "        if False:", "test_clusters.py"),
    Fault("presets by the name of an agent", "experiment/presets.py", "if issubclass(agent.Config, own.Config)", "if agent.name == name", "test_own_agents.py"),
    Fault("a file of another algorithm is a preset", "experiment/presets.py", "if algorithm not in (agent.name, family):", "if False:", "test_preset_files.py"),
    Fault("the budget of a preset's file stays beside the user's", "experiment/presets.py", "values.update(dict.fromkeys(budget_names(agent.Config)))", "pass", "test_preset_files.py"),
    Fault("values of a preset's file are not checked", "experiment/presets.py", "            check_value(name, value, specs[name])", "            pass", "test_preset_files.py"),
    Fault("importance by chance", "analysis/tuning.py", "(between - by_chance)", "between", "test_tuning_figures.py"),
    Fault("importance of values that are out of order", "analysis/tuning.py", "groups = np.unique(values, return_inverse=True)\n", "groups = np.unique(values[::-1], return_inverse=True)\n", "test_tuning_figures.py"),
    Fault("learners may change their shapes", "experiment/validation.py", "        if old != new:", "        if False:", "test_own_agents.py"),
    Fault("cut episodes of other libraries terminate", "envs/stoa.py", "is_end = timestep.discount == 0", "is_end = timestep.discount >= 0", "test_own_envs.py"),
    Fault("two networks share a label", "experiment/labels.py", "if given else name", "if False else name", "test_own_networks.py"),
    Fault("a logger can end a training", "experiment/loggers.py", "            except Exception as error:", "            except KeyError as error:", "test_loggers.py"),
    Fault("links are followed", "storage/run_folder.py", "if entry.is_symlink()]", "if False]", "test_security.py"),
]  # fmt: skip


def files_of(tests: str) -> list[Path]:
    """The files, relative to the project, of tests by name."""
    return [path.relative_to(ROOT) for name in tests.split() for path in (ROOT / "tests").rglob(name)]


# What pytest ends with where no test is selected.
NO_TESTS = 5


def survives(fault: Fault) -> str | None:
    """Plant a fault; None if the suite goes red, else what happened instead."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("purejaxrl", "tests", "docs", "pyproject.toml"):
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, Path(folder) / part)
        file = Path(folder) / "purejaxrl" / fault.file
        text = file.read_text()
        if text.count(fault.old) != 1:
            return f"its text stands {text.count(fault.old)} times in {fault.file}"
        file.write_text(text.replace(fault.old, fault.new))
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *map(str, files_of(fault.tests))]
        environment = {**os.environ, "PYTHONPATH": folder, "XLA_FLAGS": quickly.FLAGS}
        # Some faults are seen by slow tests only.
        for ring in ("not slow", "slow"):
            done = subprocess.run([*words, "-m", ring], cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode not in (0, NO_TESTS):
                break
        return None if done.returncode == 1 else f"pytest ended with {done.returncode}"


def main() -> int:
    """Plant all, two at a time; 1 if any survives."""
    chosen = [fault for fault in FAULTS if all(word in fault.name for word in sys.argv[1:])]
    tests = " ".join(sorted({name for fault in chosen for name in fault.tests.split()}))
    sound = survives(Fault("none", "types.py", "class Env(NamedTuple):", "class Env(NamedTuple):", tests))
    if sound not in ("pytest ended with 0", f"pytest ended with {NO_TESTS}"):
        print(f"the tests fail without any fault: {sound}")
        return 1
    survivors = 0
    with ThreadPoolExecutor(2) as pool:
        for fault, outcome in zip(chosen, pool.map(survives, chosen), strict=True):
            survivors += outcome is not None
            print(
                f"{'SURVIVED' if outcome else 'caught':9} {fault.name}{': ' + outcome if outcome else ''}", flush=True
            )
    print(f"{len(chosen) - survivors} of {len(chosen)} faults caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
