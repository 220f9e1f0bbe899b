"""What a scenario says about an executor; torch is not needed to read it."""

from typing import Literal

from pydantic import Field

from fedstill.config import Settings


class CohortSettings(Settings):
    """Executor `cohort`."""

    chunk: int = Field(default=0, ge=0, le=10_000)
    """Students in one computation; 0: what a short measurement of their architecture finds fastest. Roundings depend on
    it, so that a result to be repeated bit for bit needs a number here."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What computes them."""
    precision: Literal["highest", "medium"] = "highest"
    """Of float32 matrix products, as `torch.set_float32_matmul_precision` has it: `medium` is faster on some CPUs with
    the same error, and on others or on a GPU takes bfloat16 or TF32."""
