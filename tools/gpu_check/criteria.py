"""What the CUDA device must show, line by line: held, missed, or open."""

EMPTY_PER_SECOND = 34440  # GPU REST Engine's own figure at 8 connections
ABOVE_US = 20
RESNET_PER_SECOND = 20000
ACCURACY_POINTS = 0.5
TRAINED = ("resnet50", "googlenet", "caffenet")


def line(name, value, holds, text):
    return {"line": name, "verdict": "open" if value is None else "holds" if holds else "misses",
            "value": value, "text": text if value is not None else "not measured"}


def result_of(result, stage):
    return (result["stages"].get(stage) or {}).get("result") or {}


def test_lines(result):
    programs = result_of(result, "tests").get("programs")
    if programs is None:
        return [line("the CUDA tests on the card", None, False, "")]
    failed = [name for name, row in programs.items() if row["status"] != 0]
    passed = sum(row.get("passed", 0) for row in programs.values())
    return [line("the CUDA tests on the card", passed, not failed, "%d passed%s" % (
        passed, ", not: " + ", ".join(failed) if failed else ""))]


def forward_lines(result):
    forward = result_of(result, "forward")
    rows = [row for row in forward.get("against_torch", []) if row["precision"] == "f16"]
    below = ["%s %d: %.2f" % (row["net"], row["batch"], row["against_torch"]) for row in rows
             if row["against_torch"] < 1]
    best = forward.get("resnet50_best_per_second")
    return [
        line("forward, at least PyTorch's speed in fp16", len(rows) or None, not below,
             "%d of %d measured%s" % (len(rows) - len(below), len(rows),
                                      "; slower: " + ", ".join(below) if below else "")),
        line("ResNet-50's best batch, pictures a second", best, (best or 0) >= RESNET_PER_SECOND,
             "%.0f (%d)" % (best or 0, RESNET_PER_SECOND))]


def http_lines(result):
    http = result_of(result, "http")
    empty, model = http.get("empty") or {}, http.get("model") or {}
    rate, above = empty.get("per_second_8"), empty.get("above_us")
    closed = (model.get("closed_64") or {}).get("answered_per_second")
    goodput = (model.get("goodput") or {}).get("goodput_per_second")
    return [
        line("the empty net over HTTP, 8 connections", rate, (rate or 0) >= EMPTY_PER_SECOND,
             "%.0f a second (%d)" % (rate or 0, EMPTY_PER_SECOND)),
        line("its p50 above null + launch + copies", above, (above or 0) <= ABOVE_US,
             "%.1f us (%d)" % (above or 0, ABOVE_US)),
        line("500 x 375 JPEGs to answers, 64 connections", closed, True, "%.0f a second" % (
            closed or 0)),
        line("the same, goodput at p99 <= %g ms" % http.get("slo_ms", 15), goodput, True,
             "%.0f a second" % (goodput or 0))]


def rank_lines(result):
    ranks = result_of(result, "ranks")
    sizes = {row["bytes"]: row for row in ranks.get("sizes", [])}
    row = sizes.get(25 << 20) or {}
    return [line("a sum over NCCL's one rank, 25 MiB", row.get("each_us"), True,
                 "%.1f us each, %.1f us until the call returns; %s" % (
                     row.get("each_us") or 0, row.get("call_us") or 0, ranks.get("library")))]


def train_net_line(name, row):
    """Each at its best batch and in its best way."""
    ratio, ours, torch = row.get("ratio"), row.get("ours") or {}, row.get("torch") or {}
    return line("training %s, at least PyTorch's speed" % name, ratio, (ratio or 0) >= 1, ratio and (
        "%.2f: %.0f a second (%s, %d), %.0f (%s, %d)" % (
            ratio, ours["per_second"], ours["how"], ours["batch"], torch["per_second"],
            torch["how"], torch["batch"])))


def train_lines(result):
    train = result_of(result, "train")
    best = {row["net"]: row for row in train.get("best", [])}
    comm = next((row for row in train.get("comm", []) if "cost" in row), {})
    jpegs = [row for row in train.get("jpegs", []) if "bound" in row]
    return [train_net_line(name, best.get(name, {})) for name in TRAINED] + [
        line("what one rank's sums through NCCL add to a step", comm.get("cost"), True,
             "%.1f %% of %s" % (100 * comm.get("cost", 0), comm.get("net"))),
        line("training from JPEGs on disk", len(jpegs) or None, True, "; ".join(
            "%s %.0f a second, bound by %s, waited %.0f %%" % (
                row["net"], row["per_second"], row["bound"], 100 * row["waited_share"])
            for row in jpegs))]


def accuracy_lines(result):
    accuracy = result_of(result, "accuracy")
    apart, by_chance = accuracy.get("points_apart") or {}, accuracy.get("points_by_chance") or {}
    return [line("the CIFAR net's accuracy on the card, %s, against the CPU's" % precision,
                 apart.get(precision), abs(apart.get(precision) or 0) <= ACCURACY_POINTS,
                 "%+.2f points (%.1f) over %d seeds, standard error %s" % (
                     apart.get(precision) or 0, ACCURACY_POINTS, accuracy.get("seeds", 0),
                     by_chance.get(precision)))
            for precision in ("f32", "f16")]


def lines(result):
    where = "simulated" if result["simulated"] else "measured on " + result["card"]
    found = (test_lines(result) + forward_lines(result) + train_lines(result) +
             http_lines(result) + accuracy_lines(result) + rank_lines(result))
    return [dict(row, where="open" if row["verdict"] == "open" else where) for row in found]
