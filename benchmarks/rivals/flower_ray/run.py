"""Run the app in Flower's simulation: `python -m benchmarks.rivals.flower_ray.run mlp`; a line after each round."""

import argparse
import logging
import os
import warnings

os.environ.update(
    {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "OMP_NUM_THREADS": "1",
    }
)

from flwr.simulation import run_simulation

from benchmarks.rivals.flower_ray.apps import client_app, server_app


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", choices=["mlp", "cnn"])
    for name, default in (("devices", 200), ("rounds", 3), ("samples", 60), ("rows", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--workers", type=int, help="actors at once [default: one for each core]")
    parser.add_argument("--gpu", action="store_true", help="actors compute on one GPU, which they share")
    chosen = parser.parse_args()
    actors = chosen.workers or len(os.sched_getaffinity(0))
    cores = {} if chosen.workers is None else {"init_args": {"num_cpus": chosen.workers}}
    logging.getLogger("flwr").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    run_simulation(
        server_app=server_app(chosen.devices, chosen.rounds),
        client_app=client_app(chosen.student, chosen.samples, chosen.rows, "cuda" if chosen.gpu else "cpu"),
        num_supernodes=chosen.devices,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": int(1e4 / actors) / 1e4 if chosen.gpu else 0.0},
            **cores,
        },
    )


if __name__ == "__main__":
    main()
