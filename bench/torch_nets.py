"""The four nets for PyTorch, written from the published tables: what bench/forward_gpu times
beside ours (torch_train_nets.py has them as they train). Batch norms are folded into the
convolutions, as ours are; dropout is the identity. `python3 bench/torch_nets.py` checks shapes,
multiplications and weights."""
import torch
from torch import nn
from torch.nn import functional


def conv(inputs, outputs, kernel, stride=1, pad=0, groups=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups),
                         nn.ReLU(inplace=True))


def pool(kernel, stride, pad=0):
    return nn.MaxPool2d(kernel, stride, pad, ceil_mode=True)  # Caffe rounds up


def lrn():
    return nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)


class CaffeNet(nn.Sequential):
    """Krizhevsky et al. with pooling before normalisation; 227 x 227."""
    size = 227

    def __init__(self):
        super().__init__(
            conv(3, 96, 11, 4), pool(3, 2), lrn(), conv(96, 256, 5, 1, 2, 2), pool(3, 2), lrn(),
            conv(256, 384, 3, 1, 1), conv(384, 384, 3, 1, 1, 2), conv(384, 256, 3, 1, 1, 2),
            pool(3, 2), nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(inplace=True),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 1000),
            nn.Softmax(1))


class Inception(nn.Module):
    def __init__(self, inputs, n1, r3, n3, r5, n5, after_pool):
        super().__init__()
        self.one = conv(inputs, n1, 1)
        self.three = nn.Sequential(conv(inputs, r3, 1), conv(r3, n3, 3, 1, 1))
        self.five = nn.Sequential(conv(inputs, r5, 1), conv(r5, n5, 5, 1, 2))
        self.pool = nn.Sequential(pool(3, 1, 1), conv(inputs, after_pool, 1))

    def forward(self, x):
        return torch.cat((self.one(x), self.three(x), self.five(x), self.pool(x)), 1)


class GoogLeNet(nn.Sequential):
    """Szegedy et al., table 1, without the heads on the side; 224 x 224."""
    size = 224

    def __init__(self):
        super().__init__(
            conv(3, 64, 7, 2, 3), pool(3, 2), lrn(), conv(64, 64, 1), conv(64, 192, 3, 1, 1),
            lrn(), pool(3, 2), Inception(192, 64, 96, 128, 16, 32, 32),
            Inception(256, 128, 128, 192, 32, 96, 64), pool(3, 2),
            Inception(480, 192, 96, 208, 16, 48, 64), Inception(512, 160, 112, 224, 24, 64, 64),
            Inception(512, 128, 128, 256, 24, 64, 64), Inception(512, 112, 144, 288, 32, 64, 64),
            Inception(528, 256, 160, 320, 32, 128, 128), pool(3, 2),
            Inception(832, 256, 160, 320, 32, 128, 128),
            Inception(832, 384, 192, 384, 48, 128, 128), nn.AvgPool2d(7, 1), nn.Flatten(),
            nn.Linear(1024, 1000), nn.Softmax(1))


class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = conv(inputs, squeezed, 1)
        self.one = conv(squeezed, expanded, 1)
        self.three = conv(squeezed, expanded, 3, 1, 1)

    def forward(self, x):
        x = self.squeeze(x)
        return torch.cat((self.one(x), self.three(x)), 1)


class SqueezeNet(nn.Sequential):
    """Iandola et al., version 1.1; 227 x 227."""
    size = 227

    def __init__(self):
        super().__init__(
            conv(3, 64, 3, 2), pool(3, 2), Fire(64, 16, 64), Fire(128, 16, 64), pool(3, 2),
            Fire(128, 32, 128), Fire(256, 32, 128), pool(3, 2), Fire(256, 48, 192),
            Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256), conv(512, 1000, 1),
            nn.AvgPool2d(14), nn.Flatten(), nn.Softmax(1))


class Bottleneck(nn.Module):
    """He et al.'s first version: the stride is in the first convolution. `unit` makes a
    convolution with what is behind it, `last` one that a sum follows."""

    def __init__(self, inputs, width, stride, projects, unit, last):
        super().__init__()
        self.branch = nn.Sequential(unit(inputs, width, 1, stride), unit(width, width, 3, 1, 1),
                                    last(width, 4 * width, 1))
        self.side = last(inputs, 4 * width, 1, stride) if projects else nn.Identity()

    def forward(self, x):
        return functional.relu(self.branch(x) + self.side(x), inplace=True)


class ResNet50(nn.Sequential):
    """224 x 224."""
    size = 224

    def __init__(self, unit=conv, last=nn.Conv2d):
        blocks, inputs = [], 64
        for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for i in range(count):
                blocks.append(Bottleneck(inputs, width, stride if i == 0 else 1, i == 0, unit,
                                         last))
                inputs = 4 * width
        super().__init__(unit(3, 64, 7, 2, 3), pool(3, 2), *blocks, nn.AvgPool2d(7, 1),
                         nn.Flatten(), nn.Linear(2048, 1000), nn.Softmax(1))


# Weights and multiplications as our own reading of the prototxt has them (tests/net's
# published_nets); ResNet-50: 25,557,032 less 26,560 factors of its batch norms, whose
# shifts are the convolutions' biases.
NETS = {
    "caffenet": (CaffeNet, 60965224, 724406816),
    "googlenet": (GoogLeNet, 6998552, 1582671872),
    "resnet50": (ResNet50, 25557032 - 26560, 3857973248),
    "squeezenet": (SqueezeNet, 1235496, 387747520),
}


def multiplications(net):
    total = []

    def count(module, _, y):
        weights = module.weight
        places = y.shape[2] * y.shape[3] if y.dim() == 4 else 1
        total.append(weights.numel() * places)

    hooks = [module.register_forward_hook(count) for module in net.modules()
             if isinstance(module, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        y = net(torch.zeros(1, 3, net.size, net.size))
    for hook in hooks:
        hook.remove()
    return sum(total), tuple(y.shape)


def check():
    failed = 0
    for name, (make, weights, expected) in NETS.items():
        net = make().eval()
        found = sum(p.numel() for p in net.parameters())
        macs, shape = multiplications(net)
        good = found == weights and macs == expected and shape == (1, 1000)
        failed += not good
        print("%s %s: %d weights, %d multiplications, result %s%s" % (
            "ok" if good else "not ok", name, found, macs, shape,
            "" if good else " (expected %d and %d)" % (weights, expected)))
    return failed


if __name__ == "__main__":
    raise SystemExit(check())
