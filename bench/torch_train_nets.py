"""The nets of bench/train_gpu for PyTorch, as they train: torch_nets' with batch norms, dropout
and the heads on the side. `python3 bench/torch_train_nets.py` checks the counts of weights, and
that one step on the CPU gives each of them a gradient."""
import math

import torch
from torch import nn
from torch.nn import functional

import torch_nets


def unit(inputs, outputs, kernel, stride=1, pad=0):
    return nn.Sequential(last(inputs, outputs, kernel, stride, pad), nn.ReLU(inplace=True))


def last(inputs, outputs, kernel, stride=1, pad=0):
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=False),
                         nn.BatchNorm2d(outputs))


def layers_of(net):
    """Without the softmax, which the loss has."""
    return list(net.children())[:-1]


class Scored(nn.Module):
    """A net with its loss: forward(pictures, labels)."""

    def losses(self, x):
        """Pairs of a weight and scores."""
        return [(1.0, self.net(x))]

    def forward(self, x, labels):
        total = 0
        for weight, scores in self.losses(x):
            total = total + weight * functional.cross_entropy(scores.float(), labels)
        return total


class CaffeNet(Scored):
    size = 227

    def __init__(self):
        super().__init__()
        layers, found = [], layers_of(torch_nets.CaffeNet())
        for before, layer in zip([None] + found, found):
            layers.append(layer)
            if isinstance(before, nn.Linear):  # the layer is its ReLU
                layers.append(nn.Dropout(0.5))
        self.net = nn.Sequential(*layers)


def head(inputs):
    """Szegedy et al., section 5: of a map of 14 x 14."""
    return nn.Sequential(nn.AvgPool2d(5, 3, ceil_mode=True), torch_nets.conv(inputs, 128, 1),
                         nn.Flatten(), nn.Linear(2048, 1024), nn.ReLU(inplace=True),
                         nn.Dropout(0.7), nn.Linear(1024, 1000))


class GoogLeNet(Scored):
    size = 224

    def __init__(self):
        super().__init__()
        layers = layers_of(torch_nets.GoogLeNet())
        after_4a = 1 + [i for i, layer in enumerate(layers)
                        if isinstance(layer, torch_nets.Inception)][2]
        self.to_4a = nn.Sequential(*layers[:after_4a])
        self.to_4d = nn.Sequential(*layers[after_4a:after_4a + 3])
        self.to_end = nn.Sequential(*layers[after_4a + 3:-1], nn.Dropout(0.4), layers[-1])
        self.heads = nn.ModuleList((head(512), head(528)))

    def losses(self, x):
        x = self.to_4a(x)
        y = self.to_4d(x)
        return [(0.3, self.heads[0](x)), (0.3, self.heads[1](y)), (1.0, self.to_end(y))]


class ResNet50(Scored):
    size = 224

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(*layers_of(torch_nets.ResNet50(unit, last)))


# With the weights that the published prototxts have (tests/net's published_nets).
NETS = {"resnet50": (ResNet50, 25557032), "googlenet": (GoogLeNet, 13378280),
        "caffenet": (CaffeNet, 60965224)}


def one_step(net, batch=2):
    """The loss, and how many parameters got no gradient that is finite and not 0."""
    torch.manual_seed(1)
    net.train()
    x = torch.randn(batch, 3, net.size, net.size).to(memory_format=torch.channels_last)
    loss = net.to(memory_format=torch.channels_last)(x, torch.arange(batch) % 1000)
    loss.backward()
    return loss.item(), sum(p.grad is None or not math.isfinite(p.grad.abs().sum().item())
                            or p.grad.abs().sum().item() == 0 for p in net.parameters())


def check():
    """Before it has learnt anything a net guesses: each loss is about ln 1000."""
    failed = 0
    for name, (make, weights) in NETS.items():
        net = make()
        found = sum(p.numel() for p in net.parameters())
        loss, without = one_step(net)
        guess = math.log(1000) * sum(weight for weight, _ in net.losses(torch.zeros(
            2, 3, net.size, net.size)))
        good = found == weights and without == 0 and 0.8 < loss / guess < 1.25
        failed += not good
        print("%s %s: %d weights (%d), loss %.3f (%.3f), %d of %d without a gradient" % (
            "ok" if good else "not ok", name, found, weights, loss, guess, without,
            len(list(net.parameters()))))
    return failed


if __name__ == "__main__":
    raise SystemExit(check())
