#!/usr/bin/env python3
"""`saccade serve` from outside: answers, refusals, hostile pictures, restarts."""
import json
import os
import re
import resource
import subprocess
import time

from harness import (binary, case, data, folder, main, multipart, need, read, run, Server, Skip,
                     squeezenet)

# OpenCV's DNN module on the same picture and weights (straight bilinear to 227,
# means 104, 117, 123); within 0.02 each.
CAT = [("n02123045 tabby, tabby cat", .2742), ("n02123159 tiger cat", .2663),
       ("n02119789 kit fox, Vulpes macrotis", .1789), ("n02124075 Egyptian cat", .0831),
       ("n02085620 Chihuahua", .0777)]


def check_cat(answer):
    need(len(answer) == 5, answer)
    for got, (label, confidence) in zip(answer, CAT):
        need(got["label"] == label and abs(got["confidence"] - confidence) <= 0.02, answer)


@case("the cat gets the labels that another implementation gives")
def _():
    with Server() as server:
        answer = server.classify(read(data("images/cat.jpg")))
        need(answer.status == 200, answer.content)
        need(answer.getheader("Content-Type").startswith("application/json"))
        for stage in ("receive", "decode", "queue", "compute"):
            need(stage in answer.getheader("Server-Timing", ""), answer.getheaders())
        check_cat(json.loads(answer.content))


@case("curl, which waits for 100 Continue, is answered without its second of waiting")
def _():
    with Server() as server:
        done = subprocess.run(
            ["curl", "-sS", "-w", "%{http_code} %{time_total}", "-o", "/dev/null",
             "-H", "Expect: 100-continue", "--data-binary", "@" + data("images/fish-bike.jpg"),
             server.url("/api/classify")], capture_output=True, text=True, timeout=60)
        status, seconds = done.stdout.split()
        need(status == "200" and float(seconds) < 0.9, done)


@case("raw and multipart answers are what classify prints")
def _():
    pictures = [data("images/" + name) for name in ("cat.jpg", "fish-bike.jpg", "cat_gray.jpg",
                                                    "space_shuttle.jpg")]
    lines = run("classify", "--model", squeezenet(), "--json", *pictures).splitlines()
    need(len(lines) == len(pictures), lines)
    with Server() as server:
        for path, line in zip(pictures, lines):
            expected = json.loads(line)["predictions"]
            answer = server.classify(read(path))
            need(answer.status == 200 and json.loads(answer.content) == expected, path,
                 answer.content, expected)
            kind, body = multipart([("image", os.path.basename(path), read(path))])
            answer = server.classify(body, {"Content-Type": kind})
            need(answer.status == 200 and json.loads(answer.content) == expected, path,
                 answer.content, expected)


@case("SINGA's route answers lines of label and probability")
def _():
    with Server() as server:
        kind, body = multipart([("image", "cat.jpg", read(data("images/cat.jpg")))])
        answer = server.ask("POST", "/api", body, {"Content-Type": kind})
        need(answer.status == 200, answer.content)
        text = answer.content.decode()
        need(text.count("<br/>") == 5 and "tabby" in text.split("<br/>")[0], text)


@case("a multipart request of several pictures has an error for the bad one alone")
def _():
    cat = read(data("images/cat.jpg"))
    with Server() as server:
        kind, body = multipart([("image", "a.jpg", cat), ("image", "b.jpg", b"not a picture"),
                                ("image", "c.jpg", cat)])
        answer = server.classify(body, {"Content-Type": kind})
        need(answer.status == 200, answer.status, answer.content)
        items = json.loads(answer.content)
        need(len(items) == 3 and "error" in json.dumps(items[1]), items)
        need("error" not in items[0] and "error" not in items[2], items)


@case("topk gives as many labels as it says")
def _():
    with Server() as server:
        answer = server.ask("POST", "/api/classify?topk=2", read(data("images/cat.jpg")))
        need(len(json.loads(answer.content)) == 2, answer.content)


@case("what is asked wrongly is refused in a sentence")
def _():
    with Server() as server:
        wrong = [("POST", "/api/classify", b"", 400), ("GET", "/api/classify", None, 405),
                 ("GET", "/nothing", None, 404), ("POST", "/api/classify", b"GIF89a", (400, 415)),
                 ("POST", "/api/classify", b"x" * (16 * 1024 * 1024 + 1), 413)]
        for method, path, body, status in wrong:
            answer = server.ask(method, path, body)
            expected = status if isinstance(status, tuple) else (status,)
            need(answer.status in expected, method, path, answer.status, answer.content)
            need(json.loads(answer.content)["error"], answer.content)
        need("POST" in server.get("/api/classify").getheader("Allow", ""))


@case("health, readiness, models, metrics and the page answer")
def _():
    with Server() as server:
        for path in ("/healthz", "/readyz", "/api/null", "/"):
            need(server.get(path).status == 200, path)
            need(server.ask("HEAD", path).content == b"", path)
        need("squeezenet" in server.get("/api/models").content.decode())
        server.classify(read(data("images/cat.jpg")))
        need(server.metric("nv_inference_request_success") == 1)
        need(server.metric("nv_inference_pending_request_count") == 0)


@case("an answer is the same whether cores join on a picture or not")
def _():
    if len(os.sched_getaffinity(0)) < 2:
        raise Skip("one core")
    body = read(data("images/cat.jpg"))
    with Server("--together", "1") as server:
        apart = server.classify(body).content
        for _ in range(5):
            time.sleep(0.05)
            need(server.classify(body).content == apart)
        need(server.metric("saccade_together_total") == 0)
    with Server() as server:
        end = time.monotonic() + 60
        while server.metric("saccade_together_total") == 0 and time.monotonic() < end:
            need(server.classify(body).content == apart)
            time.sleep(0.05)
        need(server.metric("saccade_together_total") > 0)
        name = read("/proc/%d/comm" % server.process.pid).strip()
        need(name == os.path.basename(binary())[:15].encode(), name)


def hostile_files():
    for base, _, names in sorted(os.walk(data("images/hostile"))):
        for name in sorted(names):
            yield os.path.join(base, name)


def check_sane(server, what, body):
    answer = server.classify(body, {"X-Timeout-Ms": "60000"})
    if answer.status == 200:
        items = json.loads(answer.content)
        need(len(items) == 5 and all(0 <= i["confidence"] <= 1 for i in items), what, items)
    else:
        need(400 <= answer.status < 500, what, answer.status, answer.content)
        need(json.loads(answer.content)["error"], what, answer.content)
        need(not re.search(rb"0x[0-9a-f]{6}", answer.content), what, "a pointer leaks:",
             answer.content)


@case("every hostile file gets a refusal or a valid answer")
def _():
    with Server() as server:
        for path in hostile_files():
            check_sane(server, path, read(path) or b"\0")


@case("every truncation of a small JPEG and of a small PNG does, too")
def _():
    small = [data("images/hostile/jpeg/8bit_1x1_444.jpg"),
             data("images/png/primary_check/basn3p08.png")]
    with Server() as server:
        for path in small:
            whole = read(path)
            need(len(whole) <= 4096, path, "is not small")
            for size in range(1, len(whole) + 1):
                check_sane(server, "%s cut to %d" % (path, size), whole[:size])


@case("the AMI's environment file serves, byte for byte")
def _():
    # Its paths are relative: they are made here, and lead to SqueezeNet.
    base = os.path.join(folder(), "ami")
    files = {"caffe/models/bvlc_reference_caffenet/deploy.prototxt":
             data("squeezenet_v1.1/deploy.prototxt"),
             "caffe/models/bvlc_reference_caffenet/bvlc_reference_caffenet.caffemodel":
             data("squeezenet_v1.1/squeezenet_v1.1.caffemodel"),
             "caffe/data/ilsvrc12/imagenet_mean.binaryproto":
             data("ilsvrc12/imagenet_mean.binaryproto"),
             "caffe/data/ilsvrc12/synset_words.txt": data("ilsvrc12/synset_words.txt")}
    for name, target in files.items():
        os.makedirs(os.path.dirname(os.path.join(base, name)), exist_ok=True)
        os.symlink(target, os.path.join(base, name))
    with Server("--env-file", data("ami/gpurestengine.default"), cwd=base, model=False) as server:
        answer = server.classify(read(data("images/cat.jpg")))
        need(answer.status == 200, answer.content)
        check_cat(json.loads(answer.content))


@case("after SIGKILL a second start on the same port just works")
def _():
    first = Server()
    connection = first.connect()
    connection.request("GET", "/healthz")
    need(connection.getresponse().status == 200)
    need(first.stop(9) == -9)
    with Server(port=first.port) as second:
        need(second.classify(read(data("images/cat.jpg"))).status == 200)


@case("a shell's limit on open files does not bound the connections")
def _():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with Server() as server:
            limits = read("/proc/%d/limits" % server.process.pid).decode()
            soft, hard = re.search(r"Max open files +(\S+) +(\S+)", limits).groups()
            need(soft == hard and int(soft) == before[1], limits)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@case("classify goes on where it was stopped, and leaves other files alone")
def _():
    pictures = [data("images/cat.jpg"), data("images/fish-bike.jpg"), data("images/cat_gray.jpg")]
    words = ["classify", "--model", squeezenet()]
    for style in ("--json", "--csv"):
        whole = run(*words, style, *pictures)
        out = os.path.join(folder(), "out" + style)
        with open(out, "wb") as file:
            file.write(whole[:-40])
        run(*words, style, "-o", out, *pictures)
        need(read(out) == whole, style, read(out), whole)
        other = os.path.join(folder(), "picture.jpg")
        with open(other, "wb") as file:
            file.write(read(pictures[0]))
        run(*words, style, "-o", other, *pictures, status=1)
        need(read(other) == read(pictures[0]), style)


@case("bench counts what the server answered, and says how it wants to be called")
def _():
    with Server() as server:
        out = json.loads(run("bench", "--poisson", "20", "--requests", "20", "--json", "--slo-ms",
                             "60000", "--body", data("images/cat.jpg"), "--header",
                             "X-Timeout-Ms: 60000", server.url("/api/classify")))
        need(out["ok"] == out["due"] == out["good"] == 20, out)
        need(out["different"] == 0 and out["latency_ms"]["p50"] > 0, out)
    need(b"Example:" in run("bench", "--help"))
    run("bench", status=2)
    run("bench", "--rate", "x", "http://127.0.0.1/", status=2)
    run("bench", "--rate", "1", "--closed", "http://127.0.0.1/", status=2)


@case("a model that is not there is one sentence and status 1 or 2")
def _():
    done = subprocess.run([binary(), "serve", "--model", os.path.join(folder(), "none")],
                          capture_output=True, text=True, timeout=60)
    need(done.returncode in (1, 2) and "none" in done.stderr, done)


if __name__ == "__main__":
    main()
