"""The ServerApp: runs the job that the run configuration names."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedstill.errors import ConfigError
from fedstill.loading import load_object

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Load `job` (module:object) from the run configuration and run it with the grid."""
    reference = context.run_config.get("job")
    if not isinstance(reference, str):
        raise ConfigError("the run configuration names no job (key 'job', module:object)")
    load_object(reference)(grid, context)
