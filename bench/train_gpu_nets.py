"""What bench/train_gpu has trained: published prototxts with a feed of our own, and a solver."""
import os
import re

# name: the file, channels and size of its pictures
NETS = {"resnet50": ("resnet50/ResNet-50-deploy.prototxt", 3, 224),
        "googlenet": ("bvlc_googlenet/train_val.prototxt", 3, 224),
        "caffenet": ("bvlc_reference_caffenet/train_val.prototxt", 3, 227),
        "lenet": ("lenet/lenet_train_test.prototxt", 1, 28)}
SOLVER = """net: "%s" base_lr: 0.0001 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed"
max_iter: 1000000000 display: %d snapshot_after_train: false snapshot_prefix: "%s" random_seed: 1
"""
# Numbers that stay are made once, and lie on the device then.
DUMMY = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: %(batch)d dim: %(channels)d dim: %(size)d dim: %(size)d } shape { dim: %(batch)d }
  data_filler { value: 0.5 } data_filler { value: 0 } } }
"""
PICTURES = """layer { name: "data" type: "ImageData" top: "data" top: "label"
  image_data_param { source: "%(list)s" batch_size: %(batch)d new_height: 256 new_width: 256
    shuffle: true }
  transform_param { crop_size: %(size)d mirror: true mean_value: 104 mean_value: 117
    mean_value: 123 } }
"""
FEEDS = ("Data", "ImageData", "HDF5Data", "DummyData", "Input")


def split(text):
    """What stands before a prototxt's layers, and each of these."""
    text = re.sub(r"#.*", "", text)
    begins = [found.start() for found in re.finditer(r"^layer\s*\{", text, re.M)]
    layers = []
    for begin in begins:
        depth, end = 0, begin
        while depth > 0 or "}" not in text[begin:end]:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        layers.append(text[begin:end])
    return text[:begins[0]], layers


def kind_of(layer):
    return re.search(r'\btype:\s*"(\w+)"', layer).group(1)


def trained(layer):
    """Whether it is there in training, and is no feed."""
    return kind_of(layer) not in FEEDS and not re.search(r"phase:\s*TEST", layer)


def from_deploy(layers):
    """Batch norms of the batch, numbers to start from, and a loss."""
    layers = [layer for layer in layers if kind_of(layer) != "Softmax"]
    text = "\n".join(layers).replace("use_global_stats: true", "use_global_stats: false")
    text = re.sub(r"(convolution_param|inner_product_param)\s*\{",
                  r'\1 { weight_filler { type: "msra" }', text)
    scores = re.search(r'\btop:\s*"([^"]+)"', layers[-1]).group(1)
    return text + ('\nlayer { name: "loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" '
                   'top: "loss" }\n' % scores)


def prototxt(name, folder, batch, pictures=None):
    """`pictures`: a list of files and labels, in place of numbers that stay."""
    path, channels, size = NETS[name]
    with open(os.path.join(folder, path)) as file:
        before, layers = split(file.read())
    layers = [layer for layer in layers if trained(layer)]
    deploys = not any(kind_of(layer) == "SoftmaxWithLoss" for layer in layers)
    feed = (PICTURES if pictures else DUMMY) % {"batch": batch, "channels": channels, "size": size,
                                                "list": pictures}
    return 'name: "%s"\n%s%s\n' % (name, feed, from_deploy(layers) if deploys
                                   else "\n".join(layers))


def write(folder, name, data, batch, display, pictures=None):
    """Net and solver in `folder`; the solver's path."""
    net = os.path.join(folder, "net.prototxt")
    with open(net, "w") as file:
        file.write(prototxt(name, data, batch, pictures))
    solver = os.path.join(folder, "solver.prototxt")
    with open(solver, "w") as file:
        file.write(SOLVER % (net, display, os.path.join(folder, "s")))
    return solver
