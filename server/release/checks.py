"""What a class student must hold before it is released; one that misses is refused with the figures that missed."""

from dataclasses import dataclass

from fedstill.device_classes import Budget
from server.release.export import TOLERANCE

MAX_DROP = 0.01  # of accuracy, from fp32 to the released format, where the paired 95 % interval excludes 0

MIN_AGREEMENT = 0.95  # of predictions: torch and ONNX Runtime round halves of an int8 step each in their own way


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what was checked.
        figure: what was found, in words.
        limit: what it may be, in words; empty: no limit.
        passed: whether it holds.
        refuses: whether a miss refuses the release.
    """

    name: str
    figure: str
    limit: str
    passed: bool
    refuses: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.figure}, allowed {self.limit}"


def refusals(checks: list[Check]) -> list[str]:
    """Return the reasons for which a release is refused; none: it is not."""
    return [str(check) for check in checks if check.refuses and not check.passed]


def equality(difference: float) -> Check:
    """Check the fp32 file against torch; `difference` is relative to the largest logit."""
    return Check("difference from torch", f"{difference:.1e}", f"{TOLERANCE:.0e}", difference <= TOLERANCE)


def operators(quantized: int, weighted: int, kind: str = "int8") -> Check:
    """Check that every operator with weights holds them in the numbers `kind`."""
    return Check(f"{kind} operators", f"{quantized} of {weighted}", "all, at least 1", 0 < quantized == weighted)


def agreement(share: float) -> Check:
    """Check that an int8 file learned under quantization predicts what torch does with it, but for near ties."""
    return Check("agreement with torch", f"{100 * share:.1f} %", f"{100 * MIN_AGREEMENT:.0f} %", share >= MIN_AGREEMENT)


def learned(failure: str) -> Check:
    """Tell why a student could not learn on under quantization; what it loses without refuses it."""
    return Check("quantization-aware", failure, "a student that can learn so", passed=False, refuses=False)


def suits(unsuited: str) -> Check:
    """Check that the class's format does something for its student; `unsuited` says why it does not."""
    return Check("format", unsuited or "suits", "one that suits the student", not unsuited)


def runs(failure: str) -> Check:
    """Check that fresh ONNX Runtime processes answered the self-test; `failure` says why one did not."""
    return Check("self-test", failure or "answered", "an answer of both models", not failure)


def accuracy(fp32: float, int8: float, interval: tuple[float, float]) -> Check:
    """Check what the format of the released file cost: refused above `MAX_DROP` where chance does not explain it."""
    low, high = interval
    figure = f"{100 * (fp32 - int8):.1f} points (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    return Check("accuracy drop", figure, f"{100 * MAX_DROP:.1f}", not (fp32 - int8 > MAX_DROP and low > 0))


def flash(found: int, budget: Budget) -> Check:
    """Check the quantized file's bytes."""
    return _limited("flash", found, budget.flash_bytes)


def ram(process: int, activations: int, budget: Budget) -> Check:
    """Check memory: of a fresh ONNX Runtime process, or of the activations alone."""
    if budget.ram == "activations":
        return _limited("RAM of activations", activations, budget.ram_bytes)
    return _limited("peak RSS", process, budget.ram_bytes)


def size(found: int, budget: Budget) -> Check:
    """Check the trained parameters."""
    limit = budget.parameters
    return Check("parameters", f"{found:,}", "" if limit is None else f"{limit:,}", limit is None or found <= limit)


def c_code(figure: str, passed: bool, refuses: bool) -> Check:
    """Check the C sources of a microcontroller's student; `refuses`: they were written and compiled."""
    return Check("C code", figure, "the answers of ONNX Runtime", passed, refuses)


def latency(found_ms: float, budget: Budget, own_device: bool) -> Check:
    """Check milliseconds of one sample; they refuse only when a device of the class measured them."""
    limit = budget.latency_ms
    where = " (median of the class's devices)" if own_device else " (not measured on a device of the class)"
    passed = limit is None or found_ms <= limit
    return Check("latency", f"{found_ms:.2f} ms{where}", "" if limit is None else f"{limit:g} ms", passed, own_device)


def _limited(name: str, found: int, limit: int | None) -> Check:
    allowed = "" if limit is None else f"{limit / 1e3:,.0f} kB"
    return Check(name, f"{found / 1e3:,.0f} kB", allowed, limit is None or found <= limit)
