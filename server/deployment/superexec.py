"""`python -m server.deployment.superexec ...`: Flower's SuperExec, which starts ServerApps; they end with it.

So at its start none is at work, and what one had installed half when it ended is forgotten.
"""

from flwr.supercore.cli import flower_superexec

from fedstill.flower.installed import forget_installed

if __name__ == "__main__":
    forget_installed()
    flower_superexec()
