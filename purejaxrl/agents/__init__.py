"""One algorithm a module; each ends with its `agent` record."""

from purejaxrl.agents import a3c, dqn, vpg
from purejaxrl.types import Agent

AGENTS: dict[str, Agent] = {module.agent.name: module.agent for module in (vpg, a3c, dqn)}
