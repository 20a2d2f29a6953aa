"""The nets of bench/train, once: as Caffe's prototxt for saccade, as modules for PyTorch.

A net is a list of layers, each a tuple:
    ("conv", outputs, kernel, stride, pad, groups, bias)  ("pool", "MAX" or "AVE", kernel, stride)
    ("bn",)  ("relu",)  ("lrn",)  ("fc", outputs)  ("dropout", ratio)  ("block", outputs, stride)
A pool with kernel 0 is over everything; a block is ResNet's of two 3 x 3 convolutions, with a
1 x 1 convolution beside them where its shape changes.
"""


def conv(outputs, kernel, stride=1, pad=0, groups=1, bias=True):
    return ("conv", outputs, kernel, stride, pad, groups, bias)


RELU, BN, LRN = ("relu",), ("bn",), ("lrn",)

# The CIFAR net of Caffe's examples, without its LRN.
CIFAR = [conv(32, 5, pad=2), ("pool", "MAX", 3, 2), RELU,
         conv(32, 5, pad=2), RELU, ("pool", "AVE", 3, 2),
         conv(64, 5, pad=2), RELU, ("pool", "AVE", 3, 2), ("fc", 10)]

CAFFENET = [conv(96, 11, 4), RELU, ("pool", "MAX", 3, 2), LRN,
            conv(256, 5, 1, 2, 2), RELU, ("pool", "MAX", 3, 2), LRN,
            conv(384, 3, 1, 1), RELU, conv(384, 3, 1, 1, 2), RELU,
            conv(256, 3, 1, 1, 2), RELU, ("pool", "MAX", 3, 2),
            ("fc", 4096), RELU, ("dropout", 0.5), ("fc", 4096), RELU, ("dropout", 0.5),
            ("fc", 1000)]

RESNET20 = ([conv(16, 3, 1, 1, bias=False), BN, RELU] + [("block", 16, 1)] * 3
            + [("block", 32, 2)] + [("block", 32, 1)] * 2
            + [("block", 64, 2)] + [("block", 64, 1)] * 2 + [("pool", "AVE", 0, 1), ("fc", 10)])

# name: layers, the input's channels and size, classes
NETS = {"cifar": (CIFAR, 3, 32, 10), "caffenet": (CAFFENET, 3, 227, 1000),
        "resnet20": (RESNET20, 3, 32, 10)}


class Prototxt:
    """Writes layers in a chain; `top` is the blob that the next one takes."""

    def __init__(self, source, batch):
        self.count = 0
        self.text = ('layer { name: "data" type: "HDF5Data" top: "data" top: "label"\n'
                     '  hdf5_data_param { source: "%s" batch_size: %d } }\n' % (source, batch))
        self.top = "data"

    def layer(self, kind, body="", bottoms=None):
        self.count += 1
        name = "%s%d" % (kind.lower(), self.count)
        bottoms = bottoms or [self.top]
        self.text += 'layer { name: "%s" type: "%s" %s top: "%s" %s }\n' % (
            name, kind, " ".join('bottom: "%s"' % b for b in bottoms), name, body)
        self.top = name
        return name

    def conv(self, outputs, kernel, stride, pad, groups, bias):
        self.layer("Convolution", "convolution_param { num_output: %d kernel_size: %d stride: %d "
                   "pad: %d group: %d bias_term: %s weight_filler { type: \"msra\" } }"
                   % (outputs, kernel, stride, pad, groups, str(bias).lower()))

    def bn(self):
        self.layer("BatchNorm")
        self.layer("Scale", "scale_param { bias_term: true }")

    def pool(self, method, kernel, stride):
        size = "kernel_size: %d stride: %d" % (kernel, stride) if kernel else "global_pooling: true"
        self.layer("Pooling", "pooling_param { pool: %s %s }" % (method, size))

    def block(self, channels, outputs, stride):
        shortcut = self.top
        self.conv(outputs, 3, stride, 1, 1, False)
        self.bn()
        self.layer("ReLU")
        self.conv(outputs, 3, 1, 1, 1, False)
        self.bn()
        main = self.top
        if stride > 1 or channels != outputs:
            self.top = shortcut
            self.conv(outputs, 1, stride, 0, 1, False)
            self.bn()
            shortcut = self.top
        self.layer("Eltwise", bottoms=[main, shortcut])
        self.layer("ReLU")


def prototxt(name, source, batch):
    layers, channels, _, _ = NETS[name]
    net = Prototxt(source, batch)
    for layer in layers:
        kind, rest = layer[0], layer[1:]
        if kind == "block":
            net.block(channels, *rest)
        elif kind in ("conv", "pool"):
            getattr(net, kind)(*rest)
        elif kind == "bn":
            net.bn()
        elif kind == "relu":
            net.layer("ReLU")
        elif kind == "lrn":
            net.layer("LRN", "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")
        elif kind == "dropout":
            net.layer("Dropout", "dropout_param { dropout_ratio: %g }" % rest[0])
        else:
            net.layer("InnerProduct", "inner_product_param { num_output: %d weight_filler "
                      "{ type: \"gaussian\" std: 0.01 } }" % rest[0])
        channels = rest[0] if kind in ("conv", "block") else channels
    net.layer("SoftmaxWithLoss", bottoms=[net.top, "label"])
    return 'name: "%s"\n%s' % (name, net.text)


def module(name):
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, channels, outputs, stride):
            super().__init__()
            self.main = nn.Sequential(
                nn.Conv2d(channels, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
                nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
            self.side = None
            if stride > 1 or channels != outputs:
                self.side = nn.Sequential(nn.Conv2d(channels, outputs, 1, stride, bias=False),
                                          nn.BatchNorm2d(outputs))

        def forward(self, x):
            return torch.relu(self.main(x) + (self.side(x) if self.side else x))

    layers, channels, size, _ = NETS[name]
    parts = []
    for layer in layers:
        kind, rest = layer[0], layer[1:]
        if kind == "conv":
            outputs, kernel, stride, pad, groups, bias = rest
            parts.append(nn.Conv2d(channels, outputs, kernel, stride, pad, groups=groups,
                                   bias=bias))
        elif kind == "block":
            parts.append(Block(channels, *rest))
        elif kind == "bn":
            parts.append(nn.BatchNorm2d(channels))
        elif kind == "relu":
            parts.append(nn.ReLU(inplace=True))
        elif kind == "lrn":
            parts.append(nn.LocalResponseNorm(5, 0.0001, 0.75))
        elif kind == "dropout":
            parts.append(nn.Dropout(rest[0]))
        elif kind == "pool" and rest[1] == 0:
            parts.append(nn.AdaptiveAvgPool2d(1))
        elif kind == "pool":
            pool = nn.MaxPool2d if rest[0] == "MAX" else nn.AvgPool2d
            parts.append(pool(rest[1], rest[2], ceil_mode=True))
        else:
            flat = nn.Sequential(*parts)(torch.zeros(2, 3, size, size)).flatten(1).shape[1]
            parts += [nn.Flatten(1), nn.Linear(flat, rest[0])]
        channels = rest[0] if kind in ("conv", "block") else channels
    return nn.Sequential(*parts)
