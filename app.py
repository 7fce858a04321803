"""The page as a Space runs it: `python app.py`. Everything else is in elmd.ui."""

from elmd.agent import Agent
from elmd.ui.page import launch


def main() -> None:
    """Build the agent and serve the page until the process is stopped."""
    launch(Agent.from_recipe()).block_thread()


if __name__ == "__main__":
    main()
