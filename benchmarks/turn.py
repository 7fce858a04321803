"""One turn with the default models: load time, seconds a stage, tokens a second alone and in a batch, peak memory.

Run: python benchmarks/turn.py [--set KEY=VALUE ...]
"""

import resource
import sys
import time

from elmd.agent import Agent
from elmd.data import statements
from elmd.types import Dialogue, Utterance


def main() -> None:
    overrides = [value for flag, value in zip(sys.argv[1::2], sys.argv[2::2], strict=True) if flag == "--set"]
    started = time.perf_counter()
    agent = Agent.from_recipe("agent-small", overrides)
    agent.warm()
    print(f"load and first turn  {time.perf_counter() - started:.1f} s")
    rows = [Dialogue(row.id, (Utterance("user", row.text),)) for row in statements()][::10]
    alone = [agent.reply(row) for row in rows[:8]]
    stages = ("safety", "perception", "retrieval", "prediction", "generation")
    for stage in stages:
        print(f"{stage:<20} {1000 * sum(reply.seconds[stage] for reply in alone) / len(alone):.0f} ms a turn")
    tokens = sum(reply.completion.tokens for reply in alone)
    print(f"alone                {tokens / sum(reply.seconds['generation'] for reply in alone):.1f} tokens/s")
    started = time.perf_counter()
    batch = agent.reply_many(rows)
    spent = time.perf_counter() - started
    tokens = sum(reply.completion.tokens for reply in batch)
    print(f"batch of {len(rows):<11} {tokens / spent:.1f} tokens/s, {len(rows) / spent:.2f} replies/s")
    print(f"peak memory          {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
