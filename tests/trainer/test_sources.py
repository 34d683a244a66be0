import json

import numpy as np
import pytest
from bayescale_trainer.sources import SourceError, ZipfBigram, ZipfFacts, open_source

SYNTHETIC = [
    ZipfFacts(12, symbols=16, validation_tokens=48_000),
    ZipfFacts(12, symbols=6, key_tokens=3, exponent=1.0, validation_tokens=48_000),
    ZipfFacts(12, symbols=6, key_tokens=2, value_tokens=2, validation_tokens=48_000),
    ZipfBigram(12, symbols=32, validation_tokens=48_000),
]


@pytest.mark.parametrize(
    ("symbols", "key_tokens", "exponent", "published"),
    [(256, 2, 0.5, 1.0543), (64, 3, 0.5, 0.7969), (64, 3, 1.0, 0.4094)],
)
def test_entropy_rate_of_the_three_published_settings(symbols, key_tokens, exponent, published):
    source = ZipfFacts(48, symbols, key_tokens, exponent=exponent, validation_tokens=480)
    assert source.entropy_rate == pytest.approx(published, abs=5e-5)


@pytest.mark.parametrize("source", SYNTHETIC)
def test_conditionals_are_distributions_and_their_entropy_is_the_rate(source):
    windows = source.windows(np.arange(source.validation_windows), "validation")
    exact = source.conditional(windows).astype(float)
    assert exact.shape == (*windows[:, 1:].shape, source.vocabulary)
    np.testing.assert_allclose(exact.sum(axis=2), 1, atol=1e-5)
    surprisal = -np.log(np.take_along_axis(exact, windows[:, 1:, None], 2))
    se = surprisal.mean(axis=(1, 2)).std() / len(windows) ** 0.5
    assert abs(surprisal.mean() - source.entropy_rate) < 4 * se


@pytest.mark.parametrize("source", SYNTHETIC)
def test_no_context_predicts_better_than_the_exact_conditional(source):
    """Frequencies counted in much text, given the token before, agree with it."""
    windows = source.windows(np.arange(40_000), "train")
    column = 1  # targets one token into the window: the context is one token
    first = np.bincount(windows[:, 0], minlength=source.vocabulary).argmax()
    seen = windows[windows[:, 0] == first][:, column]
    counted = np.bincount(seen, minlength=source.vocabulary) / len(seen)
    exact = source.conditional(windows[windows[:, 0] == first][:1])[0, column - 1]
    assert np.abs(counted - exact).max() < 5 * (0.25 / len(seen)) ** 0.5


def test_windows_are_the_same_read_together_or_apart():
    source = SYNTHETIC[0]
    together = source.windows(np.arange(100, 110), "train")
    apart = np.concatenate([source.windows(np.array([i]), "train") for i in range(100, 110)])
    np.testing.assert_array_equal(together, apart)


def test_validation_text_and_sources_of_other_seeds_differ_and_hash_apart():
    a, b = ZipfFacts(12, symbols=16), ZipfFacts(12, symbols=16, seed=1)
    index = np.arange(50)
    assert (a.windows(index, "train") != a.windows(index, "validation")).any()
    assert (a.windows(index, "train") != b.windows(index, "train")).any()
    assert a.fingerprint != b.fingerprint
    assert a.fingerprint == ZipfFacts(12, symbols=16).fingerprint


def test_context_that_cuts_blocks_is_refused():
    with pytest.raises(SourceError, match="multiple of key_tokens"):
        ZipfFacts(10, symbols=16)


TEXT = "The quick brown fox jumps over the lazy dog, naïvely. " * 40


def _open(tmp_path, name, **options):
    options = {"kind": "files", "paths": [name], "validation_tokens": 500, **options}
    return open_source(options, 16, tmp_path, tmp_path / "cache")


def test_the_same_text_in_three_formats_is_the_same_source(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    (tmp_path / "a.txt").write_text(f"{TEXT}\n\n{TEXT}")
    (tmp_path / "a.jsonl").write_text(2 * (json.dumps({"text": TEXT}) + "\n"))
    pq.write_table(pa.table({"text": [TEXT, TEXT]}), tmp_path / "a.parquet")
    found = [_open(tmp_path, f"a.{suffix}") for suffix in ("txt", "jsonl", "parquet")]
    assert len({source.fingerprint for source in found}) == 1
    assert found[0].bytes_per_token == 1
    assert found[0].entropy_rate is None
    whole = found[0].windows(np.arange(found[0].train_windows), "train")
    held = found[0].windows(np.arange(found[0].validation_windows), "validation")
    text = f"{TEXT}\n\n{TEXT}".encode()
    assert bytes(whole[:, :-1].astype(np.uint8).ravel()) == text[: whole[:, :-1].size]
    assert bytes(held[:, :-1].astype(np.uint8).ravel()) in text[-502:]


@pytest.mark.parametrize("header", [False, True])
def test_shards_with_and_without_header(tmp_path, header):
    tokens = np.arange(2000, dtype=np.uint16) % 300
    head = np.zeros(256, np.int32)
    head[:3] = 20240520, 1, len(tokens)
    (tmp_path / "a.bin").write_bytes((head.tobytes() if header else b"") + tokens.tobytes())
    source = _open(tmp_path, "a.bin", vocabulary=300)
    np.testing.assert_array_equal(source.windows(np.array([0]), "train")[0], tokens[:17])


def test_bpe_learns_from_training_text_and_shortens_it(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "a.txt").write_text(TEXT * 5)
    source = _open(tmp_path, "a.txt", tokenizer="bpe", vocabulary=300)
    again = _open(tmp_path, "a.txt", tokenizer="bpe", vocabulary=300)
    assert source.bytes_per_token > 1.5
    assert source.fingerprint == again.fingerprint
    assert source.tokenizer.startswith("bpe-")
    (tmp_path / "in_the_way").write_text("")
    options = {"kind": "files", "paths": ["a.txt"], "tokenizer": "bpe", "vocabulary": 300}
    with pytest.raises(SourceError, match=r"tokenizer cannot be kept in .*in_the_way"):
        open_source(options | {"validation_tokens": 500}, 16, tmp_path, tmp_path / "in_the_way")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "zipf"}, "use one of"),
        ({"kind": "zipf-facts", "symbol": 3}, "'symbol' is not one of"),
        ({"kind": "zipf-facts", "symbols": 4096, "key_tokens": 3}, "facts"),
        ({"kind": "zipf-facts", "symbols": -5}, "symbols = -5"),
        ({"kind": "zipf-bigram", "exponent": "steep"}, "exponent = 'steep'"),
        ({"kind": "files", "paths": ["none.txt"]}, "no such file"),
        ({"kind": "files", "paths": ["short.txt"]}, "one window needs"),
        ({"kind": "files", "paths": ["bad.jsonl"]}, "bad.jsonl"),
        ({"kind": "files", "paths": ["short.bin"]}, "vocabulary is missing"),
        ({"kind": "files", "paths": ["short.bin"], "vocabulary": 10}, "raise vocabulary"),
        ({"kind": "files", "paths": ["short.txt"], "tokenizer": "words"}, "bytes"),
        ({"kind": ["zipf-facts"]}, "use one of"),
        ({"kind": "zipf-facts", "validation_tokens": float("inf")}, "validation_tokens = inf"),
        ({"kind": "zipf-facts", "exponent": 200}, "exponent = 200"),
        ({"kind": "zipf-facts", "symbols": 16.5}, "symbols = 16.5: expected a whole number"),
        ({"kind": "zipf-bigram", "symbols": 100_000}, "symbols = 100000"),
        ({"kind": "files", "paths": "short.txt"}, "expected a list such as"),
        ({"kind": "files", "paths": ["short.txt", "./short.txt"]}, "short.txt is given twice"),
        ({"kind": "files", "paths": ["short.txt"], "validation_paths": ["short.txt"]}, "is given twice"),
        (
            {"kind": "files", "paths": ["short.txt"], "validation_paths": ["copy.txt"]},
            "is a copy of short.txt",
        ),
        ({"kind": "files", "paths": ["short.txt"], "validation_tokens": -5}, "validation_tokens = -5"),
        ({"kind": "files", "paths": ["short.bin"], "vocabulary": 400.0}, "vocabulary = 400.0"),
        ({"kind": "files", "paths": ["short.bin"], "bytes_per_token": "4"}, "bytes_per_token = '4'"),
        ({"kind": "files", "paths": ["wide.bin"], "vocabulary": 400}, "tokens of 32 bits"),
        ({"kind": "files", "paths": ["half.jsonl"]}, "half.jsonl cannot be read"),
        ({"kind": "files", "paths": ["bad.parquet"]}, "bad.parquet cannot be read"),
    ],
)
def test_bad_sources_are_refused_in_words(tmp_path, options, message):
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "copy.txt").write_text("short")
    (tmp_path / "bad.jsonl").write_text('{"txt": "a"}\n')
    (tmp_path / "short.bin").write_bytes(np.arange(400, dtype=np.uint16).tobytes())
    (tmp_path / "wide.bin").write_bytes(np.full(400, 20240801, np.int32).tobytes())
    (tmp_path / "half.jsonl").write_text('{"text": "\\ud83d"}\n')
    (tmp_path / "bad.parquet").write_text("no parquet")
    if options["kind"] == "files":
        options = {"validation_tokens": 100, **options}
    with pytest.raises(SourceError, match=message):
        open_source(options, 12, tmp_path, tmp_path)
