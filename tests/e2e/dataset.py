"""saccade dataset from outside: planted faults, kill -9, index pages, conversions."""
import functools
import http.server
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import threading
import time
import zlib

from harness import (SLOW, Skip, binary, case, data, folder, need, read, run, run_cases, squeezenet)

# One in seven wrong labels is not seen (src/dataset/opinion.h): with this seed all four are.
SEED = 17


def place(name):
    return os.path.join(folder(), name)


def png(width, height, shade):
    """A PNG of one file's own: a gradient that `shade` turns."""
    rows = b"".join(b"\0" + bytes((x * 5 + y * shade + c * 60 * shade) % 256
                                  for x in range(width) for c in range(3)) for y in range(height))

    def chunk(kind, body):
        return (struct.pack(">I", len(body)) + kind + body +
                struct.pack(">I", zlib.crc32(kind + body)))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return path


@functools.lru_cache(None)
def small_set(classes=3, each=40):
    """A folder a class of small PNGs, with a damaged one and one that is text."""
    base = place("small")
    for c in range(classes):
        for i in range(each):
            write(os.path.join(base, "class %d" % c, "picture%02d.png" % i),
                  png(40 + c, 30 + i % 7, c * 41 + i))
    write(os.path.join(base, "class 1", "broken.png"), png(30, 30, 3)[:200])
    write(os.path.join(base, "class 2", "text.jpg"), b"no picture")
    return base


def same_tree(a, b):
    """Every file's bytes."""
    def files(top):
        return sorted(os.path.relpath(os.path.join(at, name), top)
                      for at, _, names in os.walk(top) for name in names)
    need(files(a) == files(b), "other files", a, b, set(files(a)) ^ set(files(b)))
    for name in files(a):
        need(read(os.path.join(a, name)) == read(os.path.join(b, name)), name, "differs")


# ---- check -------------------------------------------------------------------

def check(*words, status):
    return json.loads(run("dataset", "check", "--json", *words, status=status))


def changed(pictures, target, name, *options):
    """Pictures re-encoded and resized by `dataset create`."""
    base = place("changing-" + name)
    for i, picture in enumerate(pictures):
        write(os.path.join(base, "in", "c", "%02d.jpg" % i), read(picture))
    run("dataset", "create", "--to", "folder", "--keep-order", *options,
        os.path.join(base, "in"), os.path.join(base, "out"))
    made = os.path.join(base, "out", "c")
    for source, to in zip(sorted(os.listdir(made)), target):
        shutil.copy(os.path.join(made, source), to)


def parts_of_flowers():
    """train and test of flowers17, without the pictures that it holds twice already."""
    source = data("flowers17")
    found = check(source, status=3)
    need(found["counts"]["near_duplicate"] == 66 and found["counts"]["duplicate"] == 1,
         "flowers17 itself holds", found["counts"])
    doubled = {f["file"] for f in found["findings"]}
    chance = random.Random(SEED)
    for c in sorted(os.listdir(source)):
        inside = os.path.join(source, c)
        if not os.path.isdir(inside):
            continue
        names = [n for n in sorted(os.listdir(inside)) if os.path.join(inside, n) not in doubled]
        chance.shuffle(names)
        for i, name in enumerate(names):
            part = "test" if i < 20 else "train"
            write(os.path.join(place("flowers"), part, c, name), read(os.path.join(inside, name)))
    return place("flowers"), chance


def plant(base, chance):
    """20 faults of six kinds; {path: fault}."""
    train, test = os.path.join(base, "train"), os.path.join(base, "test")
    classes = sorted(os.listdir(train))
    pool = [os.path.join(train, c, n) for c in classes for n in sorted(os.listdir(os.path.join(train, c)))]
    chance.shuffle(pool)
    planted = {}

    def put(kind, part, c, name):
        path = os.path.join(part, c, "planted_" + name)
        planted[path] = kind
        return path

    for i in range(4):  # cut short
        whole = read(pool.pop())
        write(put("corrupt", train, classes[i], "cut%d.jpg" % i), whole[:len(whole) * (i + 3) // 8])
    for i in range(4):  # the same bytes, in the other part
        picture = pool.pop()
        c = os.path.basename(os.path.dirname(picture))
        write(put("duplicate", test, c, "same%d.jpg" % i), read(picture))
    pictures = [pool.pop() for _ in range(4)]  # another size, another compression
    targets = [put("near_duplicate", test, os.path.basename(os.path.dirname(p)), "near%d.jpg" % i)
               for i, p in enumerate(pictures)]
    changed(pictures[:2], targets[:2], "near1", "--size", "180x180", "--encoding", "jpg",
            "--quality", "60")
    changed(pictures[2:], targets[2:], "near2", "--size", "400x400", "--encoding", "jpg",
            "--quality", "40")
    tiny = [put("tiny", train, classes[5 + i], "tiny%d.png" % i) for i in range(2)]
    changed([pool.pop(), pool.pop()], tiny, "tiny", "--size", "20x16")
    odd = [put("aspect", train, classes[8 + i], "odd%d.png" % i) for i in range(2)]
    changed([pool.pop(), pool.pop()], odd, "odd", "--size", "400x60", "--resize", "crop")
    for i in range(4):  # in another class's folder
        picture = pool.pop()
        own = os.path.basename(os.path.dirname(picture))
        other = chance.choice([c for c in classes if c != own])
        path = put("mislabelled", train, other, "moved%d.jpg" % i)
        os.rename(picture, path)
    need(len(planted) == 20, len(planted))
    return planted


@case("check finds 20 planted faults of six kinds in flowers17 and names few others")
def planted_faults():
    model = squeezenet()
    base, chance = parts_of_flowers()
    clean = check(os.path.join(base, "train"), os.path.join(base, "test"), status=0)
    need(clean["findings"] == [], clean["findings"])
    planted = plant(base, chance)
    found = check("--model", model, os.path.join(base, "train"), os.path.join(base, "test"), status=3)
    faults = {(f["file"], f["fault"]) for f in found["findings"]}
    missed = set(planted.items()) - faults
    # a fault shows as another as well: a thumbnail, too, is a copy
    others = {f for f in faults if f[0] not in planted}
    print("# found %d of 20, others: %s" % (20 - len(missed), sorted(others)))
    need(not missed, "missed", missed)
    need(len(others) <= 5, "also named", others)


@case("check says the same as text, and ends with 0 when there is nothing")
def check_as_text():
    base = place("two")
    write(os.path.join(base, "a", "1.png"), png(64, 64, 3))
    write(os.path.join(base, "b", "2.png"), png(64, 64, 90))
    text = run("dataset", "check", base).decode()
    need("2 pictures, 0 corrupt" in text, text)
    write(os.path.join(base, "b", "3.png"), png(64, 64, 3))
    text = run("dataset", "check", base, status=3).decode()
    need("duplicate: " + os.path.join(base, "b", "3.png") in text and "in another class" in text, text)


@case("pictures of kinds that are not read are named")
def unread():
    base = place("kinds")
    for i in range(3):
        write(os.path.join(base, "a", "%d.png" % i), png(40, 40, 3 + 50 * i))
    for name in ("1.HEIC", "2.heic", "3.TIFF", "4.webp", "notes.txt"):
        write(os.path.join(base, "b", name), b"x")
    found = check(base, status=3)
    need(found["counts"]["unread"] == 4 and found["pictures"] == 3, found)
    need([os.path.relpath(f["file"], base) for f in found["findings"]] ==
         ["b/1.HEIC", "b/2.heic", "b/3.TIFF", "b/4.webp"], found["findings"])
    done = subprocess.run([binary(), "dataset", "create", *CREATE, base, place("kinds-out")],
                          capture_output=True, text=True, timeout=60)
    need("4 pictures are left out, of kinds that are not read (2 .heic, 1 .tiff, 1 .webp)" in
         done.stderr and "1 of 2 folders have no JPEG or PNG files: b" in done.stderr, done.stderr)


# ---- create ------------------------------------------------------------------

CREATE = ["--size", "32x32", "--resize", "fill", "--threads", "2"]


def killed(words, out, after):
    """Runs the program, kills it `after` seconds in; whether it was not done yet."""
    process = subprocess.Popen([binary()] + words, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL and not os.path.exists(os.path.join(out, "dataset.json"))


@functools.lru_cache(None)
def large_set():
    """8,000 pictures for those that kill: a list that names 40 files again and again,
    so that a run takes seconds and commits many times."""
    base = place("many")
    files = []
    for i in range(40):
        files.append(write(os.path.join(base, "%02d.png" % i), png(120, 100, i)))
    lines = ["%s %d\n" % (files[i * 7 % 40], i % 5) for i in range(8000)]
    lines[777] = "%s/gone.png 3\n" % base
    return write(os.path.join(base, "list.txt"), "".join(lines).encode())


def resumes(kind):
    source = large_set()
    whole, part = place("whole-" + kind), place("part-" + kind)
    words = ["dataset", "create", "--to", kind] + CREATE + [source]
    start = time.monotonic()
    run(*words, whole)
    seconds = time.monotonic() - start
    kills = 0
    chance = random.Random(SEED)
    for _ in range(12):
        if os.path.exists(os.path.join(part, "dataset.json")):
            break
        kills += killed(words + [part], part, chance.uniform(0.05, 0.4) * seconds)
    report = json.loads(run(*words, "--json", part))
    print("# %s: %d kills, %d of %d items were done before the last run" %
          (kind, kills, report["resumed"], report["items"]))
    need(kills >= 1, "was done before it could be killed")
    need(report["pictures"] == 7999 and report["skipped"] == 1, report)
    same_tree(whole, part)


@case("an LMDB that was killed again and again equals one that was not")
def resume_lmdb():
    resumes("lmdb")


@case("a list that was killed again and again equals one that was not")
def resume_list():
    resumes("list")


@case("folders that were killed again and again equal those that were not")
def resume_folder():
    resumes("folder")


@case("damaged pictures are counted, named and skipped")
def skips():
    out = place("skipping")
    done = subprocess.run([binary(), "dataset", "create", "--to", "folder", *CREATE, small_set(), out],
                          capture_output=True, text=True, timeout=300)
    need(done.returncode == 0, done.stderr)
    need("120 pictures of 3 classes, 2 skipped" in done.stdout, done.stdout)
    skipped = read(os.path.join(out, "skipped.txt")).decode().splitlines()
    need(len(skipped) == 2 and any("broken.png: PNG" in s for s in skipped) and
         any("text.jpg: picture: neither JPEG nor PNG" in s for s in skipped), skipped)
    need(sorted(d for d in os.listdir(out) if os.path.isdir(os.path.join(out, d))) ==
         ["class 0", "class 1", "class 2"], os.listdir(out))
    need(read(os.path.join(out, "labels.txt")) == b"class 0\nclass 1\nclass 2\n")
    again = run("dataset", "create", "--to", "folder", *CREATE, small_set(), out).decode()
    need("complete already" in again, again)
    other = subprocess.run([binary(), "dataset", "create", "--to", "folder", "--size", "31x32",
                            small_set(), out], capture_output=True, text=True, timeout=300)
    need(other.returncode == 1 and "another data set" in other.stderr, other.stderr)


@case("create with parts splits each class, and the same seed gives the same parts")
def parts():
    words = ["dataset", "create", "--to", "list", "--val", "25%", "--test", "10%"] + CREATE
    run(*words, small_set(), place("parts1"))
    run(*words, small_set(), place("parts2"))
    same_tree(place("parts1"), place("parts2"))
    run(*words, "--seed", "2", small_set(), place("parts3"))
    need(read(os.path.join(place("parts1"), "train", "list.txt")) !=
         read(os.path.join(place("parts3"), "train", "list.txt")), "another seed, the same order")
    names = []
    for part, least in (("train", 76), ("val", 29), ("test", 11)):
        lines = read(os.path.join(place("parts1"), part, "list.txt")).decode().splitlines()
        need(abs(len(lines) - least) <= 4, part, len(lines))
        names += [line.split("_", 1)[1] for line in lines]
    need(len(names) == 120 and len(set(names)) == 120, len(names), len(set(names)))


@case("a folder that is divided is taken as its parts, never as classes")
def divided():
    base = place("divided")
    counts = {"train": {"a": 4, "b": 5, "c": 6}, "val": {"a": 2, "c": 3}, "test": {"c": 1}}
    shade = 0
    for part, classes in counts.items():
        for c, count in classes.items():
            for i in range(count):
                shade += 1
                write(os.path.join(base, part, c, "%d.png" % i), png(40, 40, shade * 5))
    write(os.path.join(base, "val", "c", "again.png"), read(os.path.join(base, "train", "c", "0.png")))
    write(os.path.join(base, "val", "c", "x.tif"), b"x")
    found = check(base, status=3)
    need(found["classes"] == [{"name": "a", "pictures": [4, 2, 0]}, {"name": "b", "pictures": [5, 0, 0]},
                              {"name": "c", "pictures": [6, 4, 1]}], found["classes"])
    need(found["counts"]["duplicate"] == 1 and found["counts"]["unread"] == 1 and
         "in another part" in found["findings"][0]["why"], found)
    out = place("divided-out")
    run("dataset", "create", "--to", "list", *CREATE, base, out)
    lines = {p: read(os.path.join(out, p, "list.txt")).decode().splitlines() for p in counts}
    labels = {p: sorted(line.rsplit(" ", 1)[1] for line in lines[p]) for p in counts}
    need(labels == {"train": ["0"] * 4 + ["1"] * 5 + ["2"] * 6, "val": ["0"] * 2 + ["2"] * 4,
                    "test": ["2"]}, labels)
    for part in counts:
        need(read(os.path.join(out, part, "labels.txt")) == b"a\nb\nc\n", part)
    need(check(out, status=3)["counts"]["duplicate"] == 1)
    for words, says in ((["split", base, place("no")], "is divided already"),
                        (["mean", base], "is divided already"),
                        (["create", "--val", "25%", base, place("no")], "divided already")):
        done = subprocess.run([binary(), "dataset"] + words, capture_output=True, text=True)
        need(done.returncode == 1 and says in done.stderr, words, done.stderr)
    need(not os.path.exists(place("no")))
    write(os.path.join(base, "val", "d", "1.png"), png(40, 40, 250))
    done = subprocess.run([binary(), "dataset", "check", base], capture_output=True, text=True)
    need(done.returncode == 1 and 'has the class "d", which' in done.stderr, done.stderr)
    # What create leaves divided, and what split leaves, can be checked as they lie.
    run("dataset", "split", os.path.join(base, "train"), place("divided-lists"))
    need(len(check(place("divided-lists"), status=0)["classes"][0]["pictures"]) == 2)


def refused(*words, says, status=1):
    done = subprocess.run([binary(), "dataset"] + list(words), capture_output=True, text=True,
                          timeout=120)
    need(done.returncode == status and says in done.stderr, words, done.returncode, done.stderr)


@case("what is complete is not called so when pictures or the data have changed")
def changed_since():
    base, out = place("since"), place("since-out")
    for c in "ab":
        for i in range(3):
            write(os.path.join(base, c, "%d.png" % i), png(40, 40, ord(c) + 9 * i))
    for kind in ("lmdb", "list", "folder"):
        words = ["create", "--to", kind, *CREATE, base, out + kind]
        run("dataset", *words)
        need("complete already: 6 pictures" in run("dataset", *words).decode())
    write(os.path.join(base, "a", "1.png"), png(41, 40, 5))  # another one under its name
    for kind in ("lmdb", "list", "folder"):
        refused("create", "--to", kind, *CREATE, base, out + kind, says="have changed since")
    for kind, lost in (("lmdb", "data.mdb"), ("list", "list.txt"), ("folder", "a")):
        words = ["create", "--to", kind, *CREATE, base, out + kind + "2"]
        run("dataset", *words)
        os.rename(os.path.join(out + kind + "2", lost), place("lost-" + kind))
        refused(*words, says="tells of 6 pictures, and")
    one = place("since-made")  # the same of what has no files
    run("dataset", "convert", "--to", "lmdb", base, one + "1", status=0)
    run("dataset", "create", *CREATE, one + "1", place("of-lmdb"))
    need("complete already" in run("dataset", "create", *CREATE, one + "1", place("of-lmdb")).decode())
    os.utime(os.path.join(one + "1", "data.mdb"))
    refused("create", *CREATE, one + "1", place("of-lmdb"), says="have changed since")


@case("split leaves no list of an earlier split, nor of the one it divides")
def split_again():
    base, out = place("again"), place("again-parts")
    for c in "ab":
        for i in range(8):
            write(os.path.join(base, c, "%d.png" % i), png(12, 12, ord(c) + 9 * i))
    run("dataset", "split", "--train", "50%", "--val", "0.25", "--test", "25%", base, out)
    need(len(read(os.path.join(out, "val.txt")).splitlines()) == 4)
    run("dataset", "split", "--train", "0.75", "--val", "25%", base, out)
    need(sorted(os.listdir(out)) == ["labels.txt", "train.txt", "val.txt"], os.listdir(out))
    refused("split", os.path.join(out, "train.txt"), out, says="is what is to be divided")
    need(len(read(os.path.join(out, "train.txt")).splitlines()) == 12)


@case("odd names and lists are read or refused with a sentence")
def odd_names():
    base = place("names")
    picture = write(os.path.join(base, "a", "1.png"), png(64, 64, 3))
    os.symlink("nowhere.png", os.path.join(base, "a", "2.png"))
    found = check(base, status=3)
    need([os.path.basename(f["file"]) for f in found["findings"]] == ["2.png"] and
         found["counts"]["corrupt"] == 1 and found["pictures"] == 2, found)
    listed = write(place("bom.txt"), b"\xef\xbb\xbf" + picture.encode() + b" 0\r\n")
    need(check(listed, status=0)["pictures"] == 1)
    refused("create", base, os.path.join(base, "out"), says="is inside the source")
    refused("create", os.path.join(base, "."), os.path.join(base, "a", "out"),
            says="is inside the source")
    write(os.path.join(base, "b\nc", "1.png"), png(64, 64, 9))
    refused("check", base, says='a name in it has a line break, which no list and no labels.txt '
            'can hold; rename "b')
    refused("create", "--val", "60%", "--test", "0.6", "a", "b", status=2,
            says="--val and --test are 120 % together; expected at most 100")
    refused("split", "--recipe", "egi", "--train", "50%", "a", "b", status=2,
            says="--recipe says the parts")
    refused("split", "--train", "1.5", "a", "b", status=2, says="such as 25% or 0.25")


@case("memory does not grow with the number of pictures")
def flat_memory():
    """Peak memory of 16,000 pictures is within 6 MB of that of 1,000 (paths and labels
    of the list alone are some 1.5 MB)."""
    lines = read(large_set()).decode().splitlines(True)
    lines[777] = lines[778]
    peaks = []
    for count in (1000, 16000):
        source = write(place("memory-%d/list.txt" % count), "".join((lines * 2)[:count]).encode())
        words = [binary(), "dataset", "create", "--to", "lmdb", "--encoding", "jpg", *CREATE, source,
                 place("memory-out-%d" % count)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        need(status == 0, status)
        peaks.append(usage.ru_maxrss)
    print("# peak RSS: %d KB for 1,000, %d KB for 16,000" % tuple(peaks))
    if SLOW == 1:  # a sanitizer's quarantine grows
        need(peaks[1] - peaks[0] < 6 * 1024, peaks)


# ---- An index page -----------------------------------------------------------

class Listing(http.server.SimpleHTTPRequestHandler):
    asked = []
    pages = {}  # path: content, or where it redirects to
    cut = set()  # pictures of which half is sent, with no length

    def log_message(self, *_):
        pass

    def do_GET(self):
        Listing.asked.append(self.path)
        if self.path.endswith("flaky.png") and Listing.asked.count(self.path) < 2:
            self.send_error(503)
        elif self.path.endswith("gone.png"):
            self.send_error(404)
        elif "/forbidden" in self.path:
            self.send_error(403)
        elif self.path in Listing.cut:
            content = read(self.translate_path(self.path))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content[:len(content) // 2])
        elif self.path in Listing.pages:
            self.send_page(Listing.pages[self.path])
        else:
            super().do_GET()

    def send_page(self, page):
        self.send_response(302 if page.startswith("/") else 200)
        if page.startswith("/"):
            self.send_header("Location", page)
            page = ""
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page.encode())


def served(site):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                             functools.partial(Listing, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, "http://127.0.0.1:%d" % server.server_address[1]


def fetch(url, out, status=0):
    """What is said, and the pictures by class."""
    done = subprocess.run([binary(), "dataset", "create", "--to", "folder", "--size", "20x20",
                           "--url", url, out], capture_output=True, text=True, timeout=120)
    if "was built without" in done.stderr:
        raise Skip(done.stderr.strip())
    need(done.returncode == status, done.returncode, done.stderr)
    made = {}
    if status == 0:
        made = {name: len(os.listdir(os.path.join(out, name))) for name in os.listdir(out)
                if os.path.isdir(os.path.join(out, name))}
    return done.stderr, made


@case("an index page's pictures are fetched, once, and made into a data set")
def index_page():
    site = place("site")
    for c, name in enumerate(("cats & dogs", "roses")):
        for i in range(5):
            write(os.path.join(site, "set", name, "p%d.png" % i), png(40, 40, c * 90 + i))
    write(os.path.join(site, "set", "roses", "flaky.png"), png(40, 40, 7))
    write(os.path.join(site, "set", "roses", "gone.png"), b"")
    write(os.path.join(site, "set", "roses", "notes.txt"), b"text")
    write(os.path.join(site, "set", "forbidden", "x.png"), png(4, 4, 1))
    write(os.path.join(site, "outside", "x.png"), png(4, 4, 1))
    server, url = served(site)
    said, made = fetch(url + "/set", place("fetched"))
    need(made == {"cats & dogs": 5, "roses": 6}, made)
    need("gone.png: the server answers 404; left out" in said and
         "forbidden/: the server answers 403; left out" in said, said)
    need(not any("outside" in path or "notes" in path for path in Listing.asked), Listing.asked)
    before = len(Listing.asked)
    fetch(url + "/set", place("fetched"))
    need(not any(p.endswith(("p0.png", "flaky.png")) for p in Listing.asked[before:]),
         Listing.asked[before:])
    # Of another address: refused. What is listed no more: not read.
    said, _ = fetch(url + "/outside", place("fetched"), status=1)
    need("fetched from %s/set" % url in said, said)
    shutil.rmtree(os.path.join(site, "set", "cats & dogs"))
    shutil.rmtree(place("fetched"))
    need(fetch(url + "/set", place("fetched"))[1] == {"roses": 6})
    server.shutdown()
    said, _ = fetch("file:///etc", place("no"), status=1)
    need("expected http:// or https://" in said, said)
    write(place("mine.download/thesis.txt"), b"years of work")
    said, _ = fetch(url, place("mine"), status=1)
    need("was not begun by this command" in said, said)


@case("pages are read as browsers read them")
def odd_pages():
    site = place("odd-site")
    for name in ("roses", "tulips & co", "lilies"):
        for i in range(3):
            write(os.path.join(site, "there", name, "p%d.png" % i), png(30, 30, len(name) * 9 + i))
    server, url = served(site)
    # Unquoted, with blanks, with an entity in numbers; one folder and one picture twice;
    # a query, and a redirect to another place, from which links count.
    Listing.pages = {"/list?of=all": "/there/index.html",
                     "/there/index.html": "<a href=roses/>R</a> <a href = 'lilies/'>L</a>"
                     "<a href='tulips%20&#38;%20co/'>T</a> <a href=roses/>again</a>"
                     "<a href=up/>up</a>",
                     "/there/up/": "/there/",
                     "/there/roses/": "".join("<a href=p%d.png>" % (i % 3) for i in range(60))}
    Listing.cut = {"/there/lilies/p1.png"}
    Listing.asked.clear()
    said, made = fetch(url + "/list?of=all", place("odd"))
    need(made == {"roses": 3, "tulips & co": 3, "lilies": 2}, made, said)
    need("leads elsewhere" in said and "p1.png: is cut short" in said, said)
    need(Listing.asked.count("/there/roses/p1.png") == 1, Listing.asked)
    # The server's mended: the picture is asked for again, and the others are not.
    Listing.cut.clear()
    Listing.asked.clear()
    shutil.rmtree(place("odd"))
    said, made = fetch(url + "/list?of=all", place("odd"))
    need(made["lilies"] == 3, made, said)
    need([p for p in Listing.asked if p.endswith(".png")] == ["/there/lilies/p1.png"],
         Listing.asked)
    Listing.pages = {}
    server.shutdown()


# ---- split, mean, convert ----------------------------------------------------

@case("EGI's recipe drops small classes and shares the others in thirds")
def egi():
    base = place("genera")
    for c, count in enumerate((30, 29, 45)):
        for i in range(count):
            write(os.path.join(base, "genus%d" % c, "%02d.png" % i), png(8, 8, c * 50 + i))
    out = place("egi")
    report = json.loads(run("dataset", "split", "--recipe", "egi", "--json", base, out))
    need([c["name"] for c in report["classes"]] == ["genus0", "genus2"] and report["dropped"] == 1,
         report)
    for c, third in zip(report["classes"], (10, 15)):
        need(c["train"] == c["val"] == c["test"] == third, c)
    lines = [read(os.path.join(out, p + ".txt")).decode().splitlines() for p in ("train", "val", "test")]
    need([len(part) for part in lines] == [25, 25, 25], report)
    need(len(set(sum(lines, []))) == 75, "a picture in two parts")
    for line in sum(lines, []):
        path, label = line.rsplit(" ", 1)
        need(os.path.exists(path) and ("genus0" in path) == (label == "0"), line)
    need(read(os.path.join(out, "labels.txt")) == b"genus0\ngenus2\n")


@case("what is converted round about comes back the same")
def round_about():
    base = place("round")
    for c in range(10):
        for i in range(3):
            write(os.path.join(base, "in", "c%d" % c, "%d.png" % i), png(32, 32, c * 20 + i))
    steps = [("lmdb", "a", []), ("list", "b", []), ("hdf5", "c.h5", []), ("lmdb", "d", []),
             ("cifar", "e.bin", []), ("folder", "f", ["--labels", "%s/a/labels.txt" % base])]
    at, means = os.path.join(base, "in"), []
    for kind, name, more in steps:
        out = os.path.join(base, name)
        run("dataset", "convert", "--to", kind, *more, at, out)
        at = out
        means.append(json.loads(run("dataset", "mean", "--json", at, out + ".mean")))
    need(means[4].pop("mean") == means[0]["mean"][::-1], means)  # CIFAR's planes are R, G, B
    means[4]["mean"] = means[0]["mean"]
    need(all(m == means[0] for m in means), means)
    need(len({read(os.path.join(base, n + ".mean")) for _, n, _ in steps if n != "e.bin"}) == 1)
    need(sorted(os.listdir(os.path.join(base, "f")))[:2] == ["c0", "c1"], os.listdir(os.path.join(base, "f")))
    need(len(read(os.path.join(base, "e.bin"))) == 30 * 3073)


@case("planes R, G, B stay so in LMDBs and HDF5 files, and pictures have true colours")
def planes():
    base = place("planes")
    write(os.path.join(base, "in", "red", "0.png"), png(32, 32, 3))
    first = os.path.join(base, "first.bin")
    run("dataset", "convert", "--to", "cifar", os.path.join(base, "in"), first)
    at = first
    for kind, name in (("lmdb", "a"), ("hdf5", "b.h5"), ("hdf5", "c.h5"), ("lmdb", "d"),
                       ("lmdb", "e"), ("cifar", "f.bin"), ("list", "g"), ("cifar", "h.bin")):
        out = os.path.join(base, name)
        run("dataset", "convert", "--to", kind, at, out)
        at = out
    for name in ("f.bin", "h.bin"):
        need(read(os.path.join(base, name)) == read(first), name)
    # The Datum's data, as convert_cifar_data writes them: the record's bytes as they are.
    need(read(first)[1:] in read(os.path.join(base, "a", "data.mdb")))
    for name in ("a", "d", "e"):
        need(read(os.path.join(base, name, "channels.txt")) == b"rgb\n", name)
    means = [json.loads(run("dataset", "mean", "--json", os.path.join(base, n)))["mean"]
             for n in ("first.bin", "a", "b.h5", "in")]
    need(means[0] == means[1] == means[2] == means[3][::-1], means)
    # From pictures to R, G, B; and --channels bgr turns R, G, B round.
    for source, order, name in (("in", "rgb", "i"), ("first.bin", "bgr", "j")):
        run("dataset", "convert", "--to", "lmdb", "--encoding", "none", "--channels", order,
            os.path.join(base, source), os.path.join(base, name))
    need(read(first)[1:] in read(os.path.join(base, "i", "data.mdb")))
    need(read(first)[1:] not in read(os.path.join(base, "j", "data.mdb")))
    # An LMDB from elsewhere, and the word that tells its order.
    os.remove(os.path.join(base, "a", "channels.txt"))
    run("dataset", "convert", "--to", "cifar", os.path.join(base, "a"), os.path.join(base, "k.bin"))
    write(os.path.join(base, "a", "channels.txt"), b"rgb")
    run("dataset", "convert", "--to", "cifar", os.path.join(base, "a"), os.path.join(base, "l.bin"))
    need(read(os.path.join(base, "k.bin")) != read(first) == read(os.path.join(base, "l.bin")))
    done = subprocess.run([binary(), "dataset", "convert", "--to", "folder", first,
                           os.path.join(base, "m")], capture_output=True, text=True, timeout=60)
    need(done.returncode == 0 and "read as B, G, R" in done.stderr, done)


@case("help and refusals")
def words():
    for part in ("create", "split", "check", "mean", "convert"):
        need(b"Example: saccade dataset " + part.encode() in run("dataset", part, "--help"), part)
    for wrong in (["dataset"], ["dataset", "paint"], ["dataset", "create", "a"],
                  ["dataset", "create", "--size", "0x3", "a", "b"],
                  ["dataset", "split", "--train", "50%", "--val", "3", "a", "b"],
                  ["dataset", "convert", "a", "b"], ["dataset", "create", "--to", "hdf5", "a", "b"]):
        run(*wrong, status=2)
    run("dataset", "mean", place("nowhere"), status=1)


if __name__ == "__main__":
    raise SystemExit(run_cases())
