from fedstill.rng import stream, torch_seed


def test_a_stream_depends_on_seed_and_every_key() -> None:
    values = {
        stream(seed, purpose, device, round_number).integers(2**62)
        for seed in (0, 1)
        for purpose in ("digest", "revisit")
        for device in (0, 1)
        for round_number in (1, 2)
    }
    assert len(values) == 16


def test_the_same_keys_give_the_same_stream() -> None:
    assert stream(3, "a", 1).integers(2**62) == stream(3, "a", 1).integers(2**62)
    assert torch_seed(3, "a", 1) == torch_seed(3, "a", 1)


def test_a_torch_seed_fits_torch() -> None:
    assert all(0 <= torch_seed(seed, "x") < 2**63 for seed in range(50))
